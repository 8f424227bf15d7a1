"""Base class of all data sets of images."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.class_folders import folder_path
from kd_lightning.data.few_labels import FewLabels
from kd_lightning.data.images.adapter import ImageAdapter
from kd_lightning.data.images.folder import scan_unlabeled
from kd_lightning.data.images.normalize import NORMALIZATIONS, Normalize
from kd_lightning.data.images.photos import Photos
from kd_lightning.data.module import Split
from kd_lightning.data.translation import Translation
from kd_lightning.utils.checks import choice, integer


class ImageDataModule(FewLabels):
    """Square RGB images, normalized: `Batch.x` is `[B, 3, image_size, image_size]`.

    Args:
        normalize: Mean and standard deviation of each channel, for pixels in [0, 1].
        unlabeled_root: Folder of further training images of any origin, without labels; their indices come after those
            of the data set's own.
        common: Arguments of `FewLabels` and `DataModule`.
    """

    image_size: int
    """Height and width in pixels."""
    margin = 1.0
    """Shorter side before the center crop of an evaluation, divided by `image_size`."""

    def __init__(
        self,
        *,
        normalize: Mapping[str, Any] | Normalize,
        unlabeled_root: str | Path | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.normalize = Normalize.parse(normalize)
        self.unlabeled_root = None if unlabeled_root is None else folder_path("data.unlabeled_root", unlabeled_root)

    @cached_property
    def unlabeled(self) -> Photos:
        """Pictures of `unlabeled_root`. Raises UserError if there are none."""
        return Photos() if self.unlabeled_root is None else scan_unlabeled(self.unlabeled_root)

    def identity(self) -> dict[str, Any]:
        """Return the part of the identity that all images have; keys that are not used are left out."""
        identity: dict[str, Any] = {
            "name": self.name,
            "normalize": self.normalize._asdict(),
            "split_seed": self.split_seed,
        }
        if self.unlabeled_root is not None:
            identity["unlabeled"] = self.unlabeled.fingerprint(self.unlabeled_root)
        return identity

    def samples_identity(self) -> dict[str, Any]:
        made = ("normalize", "augment", "image_size")
        return {name: value for name, value in self.identity().items() if name not in made}

    def example(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, self.image_size, self.image_size, generator=generator)

    def model_kwargs(self) -> dict[str, Any]:
        return super().model_kwargs() | {"image_size": self.image_size}

    def preprocessing(self) -> dict[str, Any]:
        return {
            "kind": "images",
            "image_size": self.image_size,
            "margin": self.margin,
            "normalize": {"mean": list(self.normalize.mean), "std": list(self.normalize.std)},
        }

    def teacher_inputs(
        self, normalize: Any, input_size: Any, key: str, network: str = "", card: Mapping[str, Any] | None = None
    ) -> tuple[Translation | None, dict[str, Any]]:
        kwargs = self.model_kwargs()
        new = self.normalize
        if isinstance(normalize, str):
            new = NORMALIZATIONS[choice(f"model.teacher_normalize{key}", normalize, list(NORMALIZATIONS))]
        elif normalize is not None:
            new = Normalize.parse(normalize, f"model.teacher_normalize{key}")
        if input_size is not None:
            kwargs["image_size"] = integer(f"model.teacher_input_size{key}", input_size, ge=8)
        if new == self.normalize and kwargs["image_size"] == self.image_size:
            return None, kwargs
        return ImageAdapter(self.normalize, new, kwargs["image_size"]), kwargs

    def raw_samples(self, split: Split, order: Tensor) -> Tensor:
        batches = self.splits[split].batches(order, self.eval_batch_size, self.view_seed, 0, torch.device("cpu"))
        return torch.cat([self.raw_inputs(batch.x) for batch in batches])

    def pixels(self, x: Tensor) -> Tensor:
        return self.raw_inputs(x).cpu()

    def raw_inputs(self, x: Tensor) -> Tensor:
        """Return the uint8 pixels `[B, H, W, 3]` that normalized images `[B, 3, H, W]` were made of."""
        mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in self.normalize)
        return (255 * (x * std + mean)).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
