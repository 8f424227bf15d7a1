"""Size of a model: parameters and multiply-accumulates."""

import itertools
import math
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from kd_lightning.models.hooks import logits_of


def _recurrent(x: Any, input_weight: Any, hidden_weight: Any, *rest: Any, **more: Any) -> int:
    """Return the operations of a recurrent layer on the CPU, of the shapes `[L, B, D]`, `[G, D]` and `[G, H]`."""
    length, batch, _ = x
    return int(2 * length * batch * (math.prod(input_weight) + math.prod(hidden_weight)))


MORE = {torch.ops.aten.mkldnn_rnn_layer: _recurrent}
"""Formulas of operations that torch counts as none."""


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, trainable or not; buffers such as BatchNorm statistics are not counted."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, x: Any) -> int:
    """Return the multiply-accumulates of one forward pass of inputs `x`, usually of one sample.

    Counts convolutions, linear layers, recurrent ones and matrix products, as papers do; normalization and activations
    are left out.
    Runs the model once in eval mode where its parameters are, and leaves each module's mode as it was.
    """
    like = next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=MORE) as counter:
            logits_of(model, tree_map(lambda t: t.to(like.device, like.dtype if t.is_floating_point() else None), x))
    finally:
        for module, training in modes:
            module.training = training
    return counter.get_total_flops() // 2
