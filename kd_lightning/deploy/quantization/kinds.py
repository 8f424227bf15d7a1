"""Kinds of nodes of a traced model, as far as rounding them to integers is concerned."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

# Operations that onnxruntime has integer kernels for: their inputs are rounded.
_INTEGER_MODULES = (nn.Conv2d, nn.Linear, nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d)
_INTEGER_FUNCTIONS: set[Any] = {
    *(operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul, torch.cat),
    *(F.adaptive_avg_pool2d, F.avg_pool2d, F.max_pool2d, torch.mean),
}
_INTEGER_METHODS = {"add", "add_", "mul", "mul_", "mean"}

# Operations that give only values they were given (or zeros): rounding commutes with them.
_KEEPING_MODULES = (nn.MaxPool2d, nn.Identity, nn.Flatten, nn.Dropout)
_KEEPING_FUNCTIONS: set[Any] = {
    *(F.max_pool2d, torch.max_pool2d, F.pad, torch.flatten, operator.getitem, torch.chunk, torch.split),
    *(torch.reshape, torch.transpose, torch.permute, F.dropout),
}
_KEEPING_METHODS = {"flatten", "reshape", "view", "transpose", "permute", "contiguous", "chunk", "split"}


def is_activation(node: fx.Node) -> bool:
    """Return whether the node gives a tensor of floats that depends on the inputs."""
    value = node.meta.get("value")
    return isinstance(value, Tensor) and value.is_floating_point() and node.op != "get_attr" and value.dim() > 0


def is_integer(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Return whether the node has an integer kernel."""
    return is_activation(node) and _among(node, modules, _INTEGER_MODULES, _INTEGER_FUNCTIONS, _INTEGER_METHODS)


def keeps_values(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Return whether the node gives only values that its first argument has, or zeros.

    That argument is an activation, or its parts; an LSTM or GRU gives several tensors, each with values of its own.
    """
    known = _among(node, modules, _KEEPING_MODULES, _KEEPING_FUNCTIONS, _KEEPING_METHODS)
    source = node.args[0] if node.args else None
    return known and isinstance(source, fx.Node) and (is_activation(source) or keeps_values(source, modules))


def _among(
    node: fx.Node, modules: Mapping[str, nn.Module], classes: tuple[type, ...], functions: set[Any], methods: set[str]
) -> bool:
    if node.op == "call_module":
        return isinstance(modules.get(str(node.target)), classes)
    return node.target in (functions if node.op == "call_function" else methods if node.op == "call_method" else ())
