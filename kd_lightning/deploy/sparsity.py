"""Single weights that are set to zero and stay there."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from kd_lightning.models import create_model


def sparse(num_classes: int, *, of: str, kwargs: Mapping[str, Any] | None = None, **facts: Any) -> nn.Module:
    """Return the model `of` whose weights stay zero where they are zero when training begins.

    Their gradient is masked; SGD and Adam, with momentum and weight decay, then leave a zero exactly as it is.

    Args:
        num_classes: Number of logits.
        of: Name for `create_model`.
        kwargs: Arguments of that model.
        facts: Facts of the data; see `create_model`.
    """
    return keep_zeros(create_model(of, num_classes, kwargs=kwargs, **facts))


def keep_zeros(model: nn.Module) -> nn.Module:
    """Return `model`, whose weights then stay zero where they are."""
    for weight in weights(model):
        weight.register_hook(lambda gradient, weight=weight: gradient * (weight != 0))
    return model


def prune_weights(model: nn.Module, ratio: float) -> nn.Module:
    """Return a copy of `model` in which the fraction `ratio` of the weights of convolutions and linear layers is zero.

    They are those of least magnitude in the whole network.
    """
    model = copy.deepcopy(model)
    layers = [(layer, "weight") for layer in _layers(model)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=ratio)
    for layer, name in layers:
        prune.remove(layer, name)
    return model


def sparsity(model: nn.Module) -> float:
    """Return the fraction of the weights of convolutions and linear layers that is zero."""
    found = weights(model)
    zeros = sum(int(torch.count_nonzero(w == 0)) for w in found)
    return zeros / max(1, sum(w.numel() for w in found))


def weights(model: nn.Module) -> list[Tensor]:
    """Return the weights of all convolutions and linear layers."""
    return [layer.weight for layer in _layers(model)]


def _layers(model: nn.Module) -> list[Any]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
