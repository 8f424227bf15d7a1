"""Networks as they were published: with their own classifier, for images as they were trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchvision import models

from kd_lightning.models.imagenet import torchvision_names
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.hub import fetched, is_hub, library

CLASSES = 1000  # of ImageNet


@dataclass(frozen=True)
class Published:
    """What a network was trained on."""

    classes: Sequence[str]
    """Names in the order of its logits."""
    normalize: dict[str, list[float]] | None = None
    """Mean and standard deviation of its images; None for no images, or if it does not say so."""
    image_size: int | None = None


def published(name: str, key: str, images: bool) -> Published:
    """Return what a network of torchvision, timm or Hugging Face was published for.

    Args:
        name: As for `create_model`.
        key: What the user typed to name it.
        images: Whether the data has images.

    Raises:
        UserError: If it is none of these, or its description cannot be had.
    """
    if is_hub(name):
        return _hugging_face(name, key, images)
    if images and name.startswith("timm/"):
        return _timm(name, key)
    if images and name in torchvision_names():
        weights = models.get_model_weights(name).DEFAULT
        eye = weights.transforms()
        return Published(weights.meta["categories"], _normalize(eye.mean, eye.std), eye.crop_size[0])
    raise UserError(
        f"{key}=published: {name!r} is not published with weights; give a network of torchvision, timm/NAME or hf/NAME"
    )


def imagenet_classes() -> list[str]:
    """Return the 1,000 names of ImageNet, as torchvision has them."""
    return list(models.ResNet18_Weights.DEFAULT.meta["categories"])


def _timm(name: str, key: str) -> Published:
    import timm

    known = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    if known is None or not known.num_classes:
        raise UserError(f"{key}=published: timm has no weights with a classifier for {name!r}")
    names = imagenet_classes() if known.num_classes == CLASSES else [str(i) for i in range(known.num_classes)]
    return Published(names, _normalize(known.mean, known.std), known.input_size[1])


def _hugging_face(name: str, key: str, images: bool) -> Published:
    transformers = library(name, key)
    read = transformers.AutoConfig.from_pretrained
    config: Any = fetched(name, key, "the configuration", lambda place: read(place, trust_remote_code=False))
    classes = [str(config.id2label[i]) for i in range(config.num_labels)]
    if not images:
        return Published(classes)
    read = transformers.AutoImageProcessor.from_pretrained
    eye: Any = fetched(name, key, "preprocessor_config.json", lambda place: read(place, trust_remote_code=False))
    size = eye.crop_size or eye.size
    side = size.get("height") or size.get("shortest_edge")
    return Published(classes, _normalize(eye.image_mean, eye.image_std), int(side))


def _normalize(mean: Sequence[float], std: Sequence[float]) -> dict[str, list[float]]:
    return {"mean": [float(v) for v in mean], "std": [float(v) for v in std]}
