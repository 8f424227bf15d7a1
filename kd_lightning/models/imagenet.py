"""Nets of torchvision and timm, with random or ImageNet weights, with the ordinary or a small-image stem."""

import os
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torchvision import models

from kd_lightning.utils.checks import UserError, did_you_mean

SMALL_STEM = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "wide_resnet50_2"),
)
"""torchvision's ResNets that get a 3×3 stem without stride and pooling when images are small."""

# Auxiliary heads would make these two return a tuple in training; `init_weights` silences a FutureWarning.
_ALWAYS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
AS_PUBLISHED: dict[str, dict[str, Any]] = {name: {"transform_input": True} for name in _ALWAYS}
"""Arguments with which a network turns images in ImageNet's normalization into what its ImageNet weights want."""


def torchvision_names() -> list[str]:
    """The classification models of the installed torchvision."""
    return models.list_models(module=models)


def torchvision_model(
    name: str, num_classes: int, image_size: int, pretrained: bool, key: str, kwargs: dict[str, Any]
) -> nn.Module:
    """torchvision's net as it is. Raises UserError for arguments or an image size that it refuses."""
    extra = _ALWAYS.get(name, {}) | ({"image_size": image_size} if name.startswith("vit_") else {})
    try:
        model = models.get_model(name, weights=None, num_classes=num_classes, **(extra | kwargs))
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{key}: {name} refuses its arguments: {error}") from error
    return _load_imagenet(model, name, key) if pretrained else model


def small_stem_resnet(name: str, num_classes: int, pretrained: bool, key: str, kwargs: dict[str, Any]) -> nn.Module:
    """torchvision's ResNet for images of 8 to 64 pixels: a 3×3 stem of stride 1, no max pooling.

    ImageNet weights fill everything but the stem's convolution (7×7 there) and the classifier, which start anew.
    """
    model: Any = torchvision_model(name, num_classes, 0, False, key, kwargs)
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
    model.maxpool = nn.Identity()
    model.stage_names = ("layer1", "layer2", "layer3", "layer4")
    model.head_name = "fc"
    return _load_imagenet(model, name, key, fresh=("conv1.weight",)) if pretrained else model


def timm_model(name: str, num_classes: int, pretrained: bool, key: str, kwargs: dict[str, Any]) -> nn.Module:
    """timm's net `name` (without the `timm/`). Raises UserError if timm, the name or the weights are not there."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UserError(f"{key}: 'timm/{name}' needs timm: pip install 'kd_lightning[timm]'") from error
    if not timm.is_model(name):
        near = did_you_mean(f"timm/{name}", (f"timm/{known}" for known in timm.list_models()))
        raise UserError(f"{key}: timm has no model {name!r}{near}")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **kwargs)
    except TypeError as error:
        raise UserError(f"{key}: timm/{name} refuses its arguments: {error}") from error
    except Exception as error:  # the hub's client has its own and changing exception types
        if not pretrained:
            raise
        cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
        raise UserError(
            f"{key}: cannot get the pretrained weights of 'timm/{name}' from the Hugging Face hub or its cache {cache} "
            f"({_one_line(error)}); fill that cache on a connected machine, or do without these weights"
        ) from error


def _load_imagenet(model: nn.Module, name: str, key: str, fresh: Collection[str] = ()) -> nn.Module:
    """Copies torchvision's DEFAULT weights but `fresh` and the classifier (kept if there are 1000 classes here too)."""
    weights = models.get_model_weights(name).DEFAULT
    try:
        # Through the model, not the file: torchvision renames keys of some old files on the way.
        source = models.get_model(name, weights=weights, progress=False).state_dict()
    except (OSError, RuntimeError) as error:
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise UserError(
            f"{key}: cannot get the ImageNet weights of {name!r} from {weights.url} ({_one_line(error)}); "
            f"download that file on a connected machine and put it into {folder}, or do without these weights"
        ) from error
    own = model.state_dict()
    differ = {k for k, v in own.items() if k in fresh or k not in source or source[k].shape != v.shape}
    classes = len(weights.meta["categories"])
    classifier = {k for k in differ if k in source and source[k].shape[0] == classes}
    if lost := sorted(differ - classifier - set(fresh)):
        raise UserError(
            f"{key}: the ImageNet weights of {name!r} do not fit the model as asked for: {', '.join(lost[:3])}"
        )
    model.load_state_dict({k: v if k in differ else source[k] for k, v in own.items()})
    return model


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
