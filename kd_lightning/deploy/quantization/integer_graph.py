"""Quantized students with their integers: weights as int8, each rounding as quantize and dequantize (QDQ)."""

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from kd_lightning.deploy.quantization.quantize import LEVELS, Rounding, round_weight, weight_scale


@torch.library.custom_op("kd_lightning::quantize", mutates_args=())
def quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Round floats to integers of `zero_point`'s type, as ONNX's QuantizeLinear."""
    limits = torch.iinfo(zero_point.dtype)
    return (torch.round(x / scale) + zero_point).clamp(limits.min, limits.max).to(zero_point.dtype)


@torch.library.custom_op("kd_lightning::dequantize", mutates_args=())
def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Turn integers to floats, as ONNX's DequantizeLinear; a scale `[out]` has one value per index of dimension 0."""
    shape = [-1, *[1] * (q.dim() - 1)] if scale.dim() else []
    return (q.to(torch.float32) - zero_point.reshape(shape).to(torch.float32)) * scale.reshape(shape)


@quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=zero_point.dtype)


@dequantize.register_fake
def _(q: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(q, dtype=torch.float32)


class _Rounding(nn.Module):
    """`Rounding` in two steps, with an integer between them."""

    def __init__(self, rounding: Rounding):
        super().__init__()
        self.register_buffer("scale", rounding.scale.clone())
        self.register_buffer("zero_point", rounding.zero_point.to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        return dequantize(quantize(x, self.scale, self.zero_point), self.scale, self.zero_point)


class _Stored(nn.Module):
    """A tensor of floats that is stored as integers."""

    def __init__(self, x: Tensor, scale: Tensor, dtype: torch.dtype, most: int):
        super().__init__()
        shape = [-1, *[1] * (x.dim() - 1)]
        self.register_buffer("q", (x.detach() / scale.reshape(shape)).round().clamp(-most, most).to(dtype))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=dtype))

    def forward(self) -> Tensor:
        return dequantize(self.q, self.scale, self.zero_point)


class _Rows(nn.Module):
    """An embedding whose rows are stored as int8; only the rows that are asked for become floats."""

    q: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        scale = weight_scale(weight)
        self.register_buffer("q", (weight.detach() / scale[:, None]).round().clamp(-LEVELS, LEVELS).to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.q).to(torch.float32) * F.embedding(ids, self.scale[:, None])


def is_quantized(model: nn.Module) -> bool:
    """Return whether `model` comes from `quantize.quantized`."""
    return any(isinstance(m, Rounding) for m in model.modules())


def integer_graph(model: nn.Module) -> fx.GraphModule:
    """Return a copy of a quantized student that computes the same from integers.

    The bias of a convolution or product is stored as int32 in steps of (input scale · weight scale), as its
    integer kernel adds it.
    """
    assert isinstance(model, fx.GraphModule)
    graph = copy.deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    modules, parameters = dict(graph.named_modules()), dict(graph.named_parameters())
    for name, module in modules.items():
        if isinstance(module, Rounding):
            graph.set_submodule(name, _Rounding(module))
    for node in [n for n in graph.graph.nodes if n.target in (F.conv2d, F.linear)]:
        x, rounded, bias = node.args[:3]
        weight = rounded.args[0]
        scale = weight_scale(parameters[weight.target])
        layer = weight.target.removesuffix(".weight").replace(".", "_")
        source = modules.get(str(x.target))
        stored = {}
        if bias is not None and isinstance(source, Rounding):
            added = parameters[bias.target]
            # A pruned channel has no weights, so that its steps would be too small for int32 to hold the bias.
            scale = torch.maximum(scale, added.detach().abs() / (source.scale * 2**30))
            step = scale * source.scale
            stored[2] = (f"stored_{layer}_bias", _Stored(added, step, torch.int32, 2**31 - 1))
        stored[1] = (f"stored_{layer}_weight", _Stored(parameters[weight.target], scale, torch.int8, LEVELS))
        for place, (name, module) in stored.items():
            graph.add_submodule(name, module)
            with graph.graph.inserting_before(node):
                node.update_arg(place, graph.graph.call_module(name))
    for node in [n for n in graph.graph.nodes if n.target is F.embedding]:
        weight = node.args[1].args[0]
        name = f"stored_{weight.target.removesuffix('.weight').replace('.', '_')}_rows"
        graph.add_submodule(name, _Rows(parameters[weight.target]))
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.call_module(name, node.args[:1]))
        graph.graph.erase_node(node)
    assert all(n.target is not round_weight or not n.users for n in graph.graph.nodes)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph
