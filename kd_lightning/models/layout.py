"""Names of a model's feature maps and of its classifier."""

import re
from typing import Any, Protocol, runtime_checkable

from torch import nn

from kd_lightning.models.heads import Heads
from kd_lightning.utils.checks import UserError

_KNOWN = (
    re.compile(r"layer\d+"),  # ResNets
    re.compile(r"stage\d+|conv5"),  # torchvision's ShuffleNetV2
    re.compile(r"stages\.\d+"),  # timm's ConvNeXt and the like
    re.compile(r"trunk_output\.block\d+"),  # torchvision's RegNets
    re.compile(r"permute"),  # torchvision's Swin, whose layers give [B, H, W, C] until here
    re.compile(r"features|layers"),  # the other convolutional nets of torchvision: only the last map
)


@runtime_checkable
class NamesLayers(Protocol):
    """A model that names its own layers, as the built-in ones do."""

    stage_names: tuple[str, ...]
    """Layers whose outputs are the feature maps `[B, C, H, W]`, in order; the last one is pooled."""
    head_name: str
    """The final `nn.Linear`."""


@runtime_checkable
class DescribesItself(Protocol):
    """A network whose arguments in a card are not those that were typed, but all that rebuilds it."""

    card_kwargs: dict[str, Any]


def stages(model: nn.Module) -> tuple[str, ...]:
    """Return the names (as in `named_modules()`) of the layers whose outputs are the feature maps `[B, C, H, W]`.

    For models that do not name them, the names that torchvision and timm commonly use are looked for; whether such an
    output has four dimensions is not checked.

    Raises:
        UserError: If there are none: then the user must name the layers.
    """
    if isinstance(model, Heads):
        return tuple(f"network.{name}" for name in stages(model.network))
    if isinstance(model, NamesLayers):
        return model.stage_names
    layers = [name for name, _ in model.named_modules()]
    for pattern in _KNOWN:
        if found := tuple(name for name in layers if pattern.fullmatch(name)):
            return found
    raise UserError(_unknown(model, "which layers of {} give feature maps"))


def head(model: nn.Module) -> str:
    """Return the name of the final `nn.Linear`, from the pooled features `[B, D]` to the logits.

    For models that do not name it, this is the one registered last.

    Raises:
        UserError: If there is no linear layer.
    """
    if isinstance(model, Heads):
        return f"network.{head(model.network)}"
    if isinstance(model, NamesLayers):
        return model.head_name
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(_unknown(model, "which layer of {} is the classifier"))
    return linear[-1]


def _unknown(model: nn.Module, question: str) -> str:
    children = ", ".join(name for name, _ in model.named_children())
    return f"cannot tell {question.format(type(model).__name__)}: name it yourself; its layers are {children}"
