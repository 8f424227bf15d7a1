"""Eight-bit integers, simulated while a student learns: what onnxruntime later computes in integers.

A quantized student is the student's graph with BatchNorm folded into the convolutions before it. Its weights are
rounded with one scale per output channel (symmetric, computed anew as they are trained). Its activations are rounded
to 8 bits, with the range found by calibration, wherever they enter an operation that has an integer kernel. Gradients
pass the rounding unchanged (straight-through; Jacob et al., arXiv 1712.05877). Such a model is trained, saved and
evaluated like any other, and `deploy.files.onnx_file` writes the same graph with its integers.

The rows of an embedding are rounded like output channels, with one scale each.

Weights use the levels −64 … 64: on x86 CPUs without VNNI, integer kernels add two products of 8 bits in 16, which
±127 would overflow.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from kd_lightning.deploy.quantization import kinds
from kd_lightning.deploy.quantization.trace import trace
from kd_lightning.deploy.sparsity import keep_zeros
from kd_lightning.models import create_model
from kd_lightning.models.hooks import logits_of
from kd_lightning.utils.checks import UserError

LEVELS = 64
"""Weights are integers of at most this magnitude."""


def int8(
    num_classes: int,
    *,
    of: str,
    kwargs: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    **facts: Any,
) -> nn.Module:
    """Return the model `of` quantized, for the weights of a run to be loaded into.

    Args:
        num_classes: Number of logits.
        of: Name for `create_model`.
        kwargs: Arguments of that model.
        shape: Shape of one input; None for images or text of the data.
        facts: Facts of the data; see `create_model`.

    Raises:
        UserError: If the model cannot be made or traced.
    """
    if shape is None:
        if "image_size" not in facts and "vocabulary" not in facts:
            raise UserError(
                f"model.student_kwargs: int8 of {of} needs the shape of an input, as the data has no images and no text"
            )
        shape = (3, facts["image_size"], facts["image_size"]) if "image_size" in facts else ()
    x: Any = torch.zeros(2, *shape)
    if "vocabulary" in facts:
        x = {"ids": torch.zeros(2, 1, dtype=torch.long), "mask": torch.ones(2, 1, dtype=torch.bool)}
    model = quantized(create_model(of, num_classes, kwargs=kwargs, **facts), x)
    return keep_zeros(model) if of == "kd_lightning.deploy.sparse" else model


def quantized(model: nn.Module, x: Any) -> fx.GraphModule:
    """Return the graph of `model` with rounding, on its folded weights, not calibrated.

    Args:
        model: The student; its BatchNorms are folded in place.
        x: Inputs of two samples.

    Raises:
        UserError: If the model has no graph.
    """
    model = model.eval().cpu().to(memory_format=torch.contiguous_format)
    graph = trace(model, x)
    _fold_batch_norm(graph)
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if kinds.is_integer(node, modules):
            for source in [n for n in node.all_input_nodes if kinds.is_activation(n)]:
                _round(graph, modules, source)
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and isinstance(modules.get(node.target), nn.Conv2d | nn.Linear | nn.Embedding):
            _round_weight(graph, node, modules[node.target])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


class Rounding(nn.Module):
    """Rounds activations of any shape to 256 levels between the least and the greatest value seen in calibration."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32))
        self.seen: list[tuple[float, float]] | None = None  # while calibrating

    def forward(self, x: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen.append((float(x.min()), float(x.max())))
            return x
        return torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero_point, 0, 255)

    def set_range(self, low: float, high: float) -> None:
        """Set the scale; zero stays exact, as padding and ReLU need it."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-8) / 255
        self.scale.fill_(scale)
        self.zero_point.fill_(round(-low / scale))


def round_weight(weight: Tensor) -> Tensor:
    """Round each output channel (the first dimension) to `−LEVELS … LEVELS` times its scale."""
    scale = weight_scale(weight)
    zero = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -LEVELS, LEVELS)


def weight_scale(weight: Tensor) -> Tensor:
    """Return one scale per output channel, `[out]`."""
    return (weight.detach().float().flatten(1).abs().amax(1) / LEVELS).clamp(min=1e-12)


def calibrate(model: nn.Module, inputs: Iterable[Any]) -> None:
    """Set every activation's range: the mean over batches of their least and greatest values."""
    with torch.no_grad(), _calibrating(model):
        for x in inputs:
            logits_of(model, x)


@contextmanager
def _calibrating(model: nn.Module) -> Iterator[None]:
    roundings = [m for m in model.modules() if isinstance(m, Rounding)]
    for rounding in roundings:
        rounding.seen = []
    yield
    for rounding in roundings:
        lows, highs = zip(*rounding.seen or [(0.0, 0.0)], strict=True)
        rounding.set_range(sum(lows) / len(lows), sum(highs) / len(highs))
        rounding.seen = None


def _fold_batch_norm(graph: fx.GraphModule) -> None:
    """Fold each BatchNorm into the convolution before it, where nothing else sees that convolution's output."""
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        before: Any = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        convolution = modules.get(before.target) if before.op == "call_module" else None
        if not isinstance(convolution, nn.Conv2d) or len(before.users) > 1:
            continue
        norm: Any = modules[node.target]
        weight, bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        convolution.weight, convolution.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()


def _round(graph: fx.GraphModule, modules: Mapping[str, nn.Module], node: fx.Node) -> str:
    """Round what `node` gives, for all that use it; return the name of the rounding."""
    for user in (node, *node.users):
        if user.op == "call_module" and str(user.target).startswith("rounding_"):
            return str(user.target)
    if kinds.keeps_values(node, modules):  # pooling by maximum, padding, slicing: the same levels before and after
        name = _round(graph, modules, node.args[0])  # type: ignore[arg-type]
        if not kinds.is_activation(node):
            return name  # the parts of a tensor, of which each is rounded by itself
    else:
        name = f"rounding_{node.name}"
        graph.add_submodule(name, Rounding())
    with graph.graph.inserting_after(node):
        rounded = graph.graph.call_module(name, (node,))
    rounded.meta["value"] = node.meta["value"]
    node.replace_all_uses_with(rounded, lambda user: user is not rounded)
    return name


def _round_weight(graph: fx.GraphModule, node: fx.Node, layer: nn.Conv2d | nn.Linear | nn.Embedding) -> None:
    """Replace a convolution, product or embedding by a function of its rounded weight."""
    with graph.graph.inserting_before(node):
        weight = graph.graph.get_attr(f"{node.target}.weight")
        rounded = graph.graph.call_function(round_weight, (weight,))
        if isinstance(layer, nn.Embedding):
            new = graph.graph.call_function(F.embedding, (*node.args, rounded, layer.padding_idx))
        else:
            bias = None if layer.bias is None else graph.graph.get_attr(f"{node.target}.bias")
            args = (*node.args, rounded, bias)
            if isinstance(layer, nn.Linear):
                new = graph.graph.call_function(F.linear, args)
            else:
                how = (layer.stride, layer.padding, layer.dilation, layer.groups)
                new = graph.graph.call_function(F.conv2d, (*args, *how))
    new.meta["value"] = node.meta["value"]
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)
