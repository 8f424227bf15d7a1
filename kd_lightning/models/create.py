"""The one look-up from a model's name to the model."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from torch import nn

from kd_lightning.models.audio import AUDIO
from kd_lightning.models.cifar_resnet import CifarResNet
from kd_lightning.models.heads import Heads
from kd_lightning.models.hugging_face import hugging_face
from kd_lightning.models.imagenet import (
    SMALL_STEM,
    small_stem_resnet,
    timm_model,
    torchvision_model,
    torchvision_names,
)
from kd_lightning.models.mobilenet import MobileNetV2
from kd_lightning.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from kd_lightning.models.text import TEXT
from kd_lightning.models.vgg import VGG
from kd_lightning.models.wide_resnet import WideResNet
from kd_lightning.utils.checks import UserError, did_you_mean, integer
from kd_lightning.utils.hub import is_hub
from kd_lightning.utils.trust import check_network

SMALL_IMAGE = 64
"""Largest image size, in pixels, for which a name that torchvision has too means the net for small images."""

BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": partial(CifarResNet, 8, widths=(32, 64, 128, 256), projection=True),
    "resnet32x4": partial(CifarResNet, 32, widths=(32, 64, 128, 256), projection=True),
    **{f"wrn_{depth}_{width}": partial(WideResNet, depth, width) for depth in (16, 40) for width in (1, 2)},
    **{f"vgg{depth}": partial(VGG, depth) for depth in (8, 11, 13)},
    "mobilenetv2": MobileNetV2,
    "shufflenetv1": ShuffleNetV1,
    "shufflenetv2": ShuffleNetV2,
}
"""Nets of our own, each a function of `num_classes`; none has ImageNet weights."""
OTHER: dict[str, tuple[str, Mapping[str, Callable[..., nn.Module]]]] = {
    "text": ("vocabulary", TEXT),
    "audio": ("bands", AUDIO),
}
"""Kind of data → the fact by which it is known, and its nets."""


def model_names() -> tuple[str, ...]:
    """Names of the nets for small images: torchvision's ResNets with a small stem, then our own."""
    return (*SMALL_STEM, *BUILT_IN)


def is_built_in(name: str, image_size: int) -> bool:
    """Return whether `name` means a net of `BUILT_IN` for images of this size, in pixels."""
    return name in BUILT_IN and (image_size <= SMALL_IMAGE or name not in torchvision_names())


def create_model(
    name: str,
    num_classes: int,
    *,
    kwargs: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    key: str = "model.student",
    **facts: Any,
) -> nn.Module:
    """Return a model from the inputs of a data set to logits `[B, num_classes]`, or to those of each of its `tasks`.

    A name that both have (`resnet50`, `vgg13`) is the net for small images up to 64 pixels and torchvision's own above.

    Args:
        name: One of `model_names()`, or of `TEXT` or `AUDIO` for such data, a classification model of torchvision,
            `timm/NAME`, `hf/NAME` or `hf/FOLDER` (Hugging Face), or the dotted path of any function or class.
        num_classes: Number of logits.
        kwargs: Arguments of the model.
        pretrained: Start from ImageNet weights, all but the classifier (and the stem's convolution in small-image
            ResNets). A dotted path is then given `pretrained=True`.
        key: What the user typed to choose the model, for messages.
        facts: Facts of the data (`DataModule.model_kwargs`), such as `image_size`; without any, 32-pixel images. A
            dotted path is given those that it has parameters for, and all if it takes `**facts`. With `tasks`, the
            number of classes by task, the model has a head for each, see `Heads`.

    Raises:
        UserError: For an unknown name, arguments that the model refuses, or weights that cannot be had; and for a
            dotted path outside `trusting()`, as it may come from a file.
    """
    model = _single(name, num_classes, dict(kwargs or {}), pretrained, key, facts or {"image_size": 32})
    return Heads(model, facts["tasks"]) if "tasks" in facts and not isinstance(model, Heads) else model


def _single(
    name: str, num_classes: int, kwargs: dict[str, Any], pretrained: bool, key: str, facts: Mapping[str, Any]
) -> nn.Module:
    """Return a model whose classifier has `num_classes` outputs."""
    integer("num_classes", num_classes, ge=1)
    if not isinstance(name, str):
        raise UserError(f"{key} must be the name of a model, got {name!r}")
    check_network(name, kwargs, key)
    if "num_classes" in kwargs:
        raise UserError(f"{key}_kwargs: the data decides num_classes; leave it out")
    if is_hub(name):
        return hugging_face(name, num_classes, pretrained, key, kwargs, facts)
    if "." in name and not name.startswith("timm/"):
        chosen = {"pretrained": True} if pretrained else {}
        function = _imported(name, key)
        return _call(function, name, key, **({"num_classes": num_classes} | _wanted(function, facts) | chosen | kwargs))
    for kind, (fact, networks) in OTHER.items():
        if name in networks:
            if fact not in facts:
                raise UserError(f"{key}: {name} is a network for {kind}, and this data set has none")
            return _other_model(networks[name], name, num_classes, pretrained, key, kwargs, facts)
    if "image_size" not in facts:
        own = [f"one of {', '.join(networks)}, or " for fact, networks in OTHER.values() if fact in facts]
        raise UserError(
            f"{key}: {name} is a network for images, and this data set has none; give {''.join(own)}a dotted path"
        )
    image_size = facts["image_size"]
    if name in SMALL_STEM and image_size <= SMALL_IMAGE:
        return small_stem_resnet(name, num_classes, pretrained, key, kwargs)
    if is_built_in(name, image_size):
        if pretrained:
            raise UserError(
                f"{key}: {name!r} has no ImageNet weights; do without them, or take a model that has them: "
                f"{', '.join(SMALL_STEM)}, or any other torchvision or timm model"
            )
        return _call(BUILT_IN[name], name, key, num_classes=num_classes, **kwargs)
    if name in torchvision_names():
        return torchvision_model(name, num_classes, image_size, pretrained, key, kwargs)
    if name.startswith("timm/"):
        return timm_model(name.removeprefix("timm/"), num_classes, pretrained, key, kwargs)
    raise UserError(
        f"{key}: unknown model {name!r}{_nearest(name)} Built in are {', '.join((*model_names(), *TEXT, *AUDIO))}; "
        "also any torchvision name, timm/NAME, hf/NAME, or a dotted path such as my_package.nets.small_net"
    )


def _other_model(
    network: Callable[..., nn.Module],
    name: str,
    num_classes: int,
    pretrained: bool,
    key: str,
    kwargs: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> nn.Module:
    if pretrained:
        raise UserError(f"{key}: {name} has no pretrained weights; do without them")
    return _call(network, name, key, **({"num_classes": num_classes} | _wanted(network, facts) | dict(kwargs)))


def _wanted(function: Callable[..., Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of the data that `function` has parameters for."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # functions written in C, which `_call` refuses
        return {}
    takes_all = any(p.kind == p.VAR_KEYWORD and name == "facts" for name, p in parameters.items())
    return {name: value for name, value in facts.items() if takes_all or name in parameters}


def _nearest(name: str) -> str:
    """The one name to suggest; of equally near ones the earlier, so the best known come first."""
    known = (*model_names(), *TEXT, *AUDIO, *torchvision_names())
    best = max(known, key=lambda other: difflib.SequenceMatcher(None, other, name).ratio())
    return did_you_mean(name, [best]) or "."


def _imported(path: str, key: str) -> Callable[..., Any]:
    module_name, _, attribute = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:  # ValueError: a path such as '.net'
        raise UserError(
            f"{key}: cannot import {module_name!r} of {path!r} ({error}); is its folder in PYTHONPATH?"
        ) from error
    public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    hint = f" in module {module_name!r}{did_you_mean(attribute, public)}"
    try:
        found: Callable[..., Any] = attrgetter(attribute)(module)
    except AttributeError as error:
        raise UserError(f"{key}: {attribute!r} does not exist{hint}") from error
    if not callable(found):
        raise UserError(f"{key}: {attribute!r} is not callable{hint}")
    return found


def _call(function: Callable[..., Any], name: str, key: str, /, **kwargs: Any) -> nn.Module:
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # functions written in C, which are no models
        raise UserError(f"{key}: {name} is not a Python function or class that makes a model") from error
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        raise UserError(f"{key}: {name} refuses its arguments: {error}; it takes {signature}") from error
    try:
        model = function(**kwargs)
    except Exception as error:
        if "." in name or isinstance(error, UserError):  # an error inside a user's own function keeps its traceback
            raise
        why = (str(error).strip().splitlines() or [""])[0][:160]
        raise UserError(f"{key}: {name} refuses its arguments: {type(error).__name__}: {why}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{key}: {name} must return a torch.nn.Module, got {type(model).__name__}")
    return model
