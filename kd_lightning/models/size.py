"""How large a model is: parameters and multiply-accumulates."""

import itertools

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not; buffers such as BatchNorm statistics are not counted."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, image_size: int) -> int:
    """Multiply-accumulates of one forward pass of one image `[1, 3, image_size, image_size]`.

    Counts convolutions, linear layers and matrix products, as papers do; normalization and activations are left out.
    Runs the model once in eval mode where its parameters are, and leaves each module's mode as it was.
    """
    like = next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype))
    finally:
        for module, training in modes:
            module.training = training
    return counter.get_total_flops() // 2
