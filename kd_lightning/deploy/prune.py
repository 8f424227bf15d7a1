"""Removal of whole channels from a network, with everything that depends on them (torch-pruning)."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kd_lightning.models import create_model, head
from kd_lightning.models.hooks import logits_of
from kd_lightning.utils.checks import UserError

FIXED = ("ConstantPadNd", "ChannelShuffle")
"""Operations, by autograd's name, after which a channel is another one: what passes them keeps its channels."""
NEEDS = ("torch_pruning",)
Shapes = dict[str, list[int]]
"""Layer → [inputs, outputs], or [channels] of a BatchNorm."""


def pruned(
    num_classes: int,
    *,
    of: str,
    layers: Mapping[str, Sequence[int]],
    kwargs: Mapping[str, Any] | None = None,
    **facts: Any,
) -> nn.Module:
    """Return the model `of` with fewer channels, for the weights of a run to be loaded into.

    Args:
        num_classes: Number of logits.
        of: Name for `create_model`.
        layers: Shapes of the layers that have fewer channels; see `shapes`.
        kwargs: Arguments of that model.
        facts: Facts of the data; see `create_model`.
    """
    model = create_model(of, num_classes, kwargs=kwargs, **facts)
    for layer, shape in layers.items():
        _resize(model.get_submodule(layer), list(shape))
    return model


def prune_channels(model: nn.Module, x: Any, ratio: float) -> nn.Module:
    """Return a copy of `model` without the fraction `ratio` of the channels of each layer.

    Those of least L2 norm over all weights that belong to them go. Logits stay, and so do channels that are tied to a
    position, such as those that an option-A shortcut pads.

    Args:
        model: The student.
        x: Inputs of two samples.
        ratio: Fraction in (0, 1).

    Raises:
        UserError: If no channel can be removed.
    """
    import torch_pruning as tp

    name = type(model).__name__
    model = copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format)
    before = shapes(model)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # about parameters that belong to no layer
            pruner = tp.pruner.BasePruner(
                model.train(),
                x,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=[model.get_submodule(head(model)), *_fixed_layers(model, x)],
            )
            pruner.step()
            logits_of(model.eval(), x)
    except UserError:
        raise
    except Exception as e:  # torch-pruning raises many kinds where it cannot follow a network
        raise UserError(
            f"--structured: torch-pruning cannot follow the channels of {name} ({str(e).partition(chr(10))[0][:80]}); "
            "prune single weights, without --structured"
        ) from e
    if shapes(model) == before:
        raise UserError(
            f"--prune {ratio:g} --structured removes no channel of {name}; prune more, or without --structured"
        )
    return model


def _fixed_layers(model: nn.Module, x: Any) -> list[nn.Module]:
    """Return the layers whose output channels cannot be followed, or pass one of the operations FIXED."""
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, x)
    fixed: list[nn.Module] = []
    for layer in [m for m in model.modules() if isinstance(m, nn.Conv2d)]:
        try:
            group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))
        except IndexError:  # a tensor that was cut and joined again
            fixed.append(layer)
            continue
        if any(op in str(dep.target.name) for dep, _ in group for op in FIXED):
            fixed.append(layer)
    return fixed


def shapes(model: nn.Module, unlike: Mapping[str, Sequence[int]] | None = None) -> Shapes:
    """Return the shapes of all convolutions, linear layers and BatchNorms, or of those that differ from `unlike`."""
    found: Shapes = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            found[name] = [layer.in_channels, layer.out_channels]
        elif isinstance(layer, nn.Linear):
            found[name] = [layer.in_features, layer.out_features]
        elif isinstance(layer, nn.BatchNorm2d):
            found[name] = [layer.num_features]
    return {name: shape for name, shape in found.items() if unlike is None or list(unlike[name]) != shape}


def _resize(layer: nn.Module, shape: list[int]) -> None:
    """Give `layer` new parameters for so many channels; a depthwise convolution stays one."""
    if isinstance(layer, nn.Conv2d):
        if layer.groups == layer.in_channels:
            layer.groups = shape[0]
        layer.in_channels, layer.out_channels = shape
        layer.weight = _empty(shape[1], shape[0] // layer.groups, *layer.kernel_size)
        layer.bias = None if layer.bias is None else _empty(shape[1])
        layer.reset_parameters()
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = shape
        layer.weight = _empty(shape[1], shape[0])
        layer.bias = None if layer.bias is None else _empty(shape[1])
        layer.reset_parameters()
    elif isinstance(layer, nn.BatchNorm2d):
        (layer.num_features,) = shape
        layer.weight, layer.bias = _empty(*shape), _empty(*shape)
        layer.running_mean, layer.running_var = torch.zeros(shape), torch.ones(shape)
        layer.reset_parameters()


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))
