"""Where a model's feature maps and its classifier are, by layer name."""

import re

from torch import nn

from kd_lightning.utils.checks import UserError

_KNOWN = (
    re.compile(r"layer\d+"),  # ResNets
    re.compile(r"stage\d+|conv5"),  # torchvision's ShuffleNetV2
    re.compile(r"stages\.\d+"),  # timm's ConvNeXt and the like
    re.compile(r"trunk_output\.block\d+"),  # torchvision's RegNets
    re.compile(r"permute"),  # torchvision's Swin, whose layers give [B, H, W, C] until here
    re.compile(r"features|layers"),  # the other convolutional nets of torchvision: only the last map
)


def stages(model: nn.Module) -> tuple[str, ...]:
    """Names (as in `named_modules()`, in order) of the layers whose outputs are the feature maps `[B, C, H, W]`.

    Built-in models say so themselves, and their last one is the map that is pooled. For others the names that
    torchvision and timm commonly use are looked for; whether such an output has four dimensions is not checked.
    Raises UserError if there are none: then the layers must be named by the user.
    """
    named = getattr(model, "stages", None)
    if isinstance(named, tuple):
        return named
    layers = [name for name, _ in model.named_modules()]
    for pattern in _KNOWN:
        if found := tuple(name for name in layers if pattern.fullmatch(name)):
            return found
    raise UserError(_unknown(model, "which layers of {} give feature maps"))


def head(model: nn.Module) -> str:
    """Name of the final `nn.Linear`, whose input is the pooled feature `[B, D]` and whose output the logits.

    For models that do not say so, the one registered last. Raises UserError if there is no Linear layer.
    """
    named = getattr(model, "head", None)
    if isinstance(named, str):
        return named
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(_unknown(model, "which layer of {} is the classifier"))
    return linear[-1]


def _unknown(model: nn.Module, question: str) -> str:
    children = ", ".join(name for name, _ in model.named_children())
    return f"cannot tell {question.format(type(model).__name__)}: name it yourself; its layers are {children}"
