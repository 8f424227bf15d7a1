"""Your own photos: `root/train/<class>/*`, and `val`, `test` likewise or held out from `train`."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torchvision.transforms import v2

from kd_lightning.data.images.augment import check_keys
from kd_lightning.data.images.folder import Photos, scan, verify
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.data.images.stream import StreamedImages
from kd_lightning.data.module import DataModule, Split
from kd_lightning.data.split import stratified_fraction
from kd_lightning.utils.checks import UserError, integer, number

IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MARGIN = 8 / 7  # what is cut off around the middle in evaluation
DEFAULT_AUGMENT: Mapping[str, Any] = {"min_area": 0.08, "flip": True}


class ImageFolderDataModule(DataModule):
    """Photos of any size and format. Training: random part of the photo (`min_area`: fraction of its area) and flip,
    resized to `image_size`; evaluation: shorter side to 8/7 of `image_size`, then the center.

    `val_size` and `test_size` are the fractions of `train` that are held out, stratified, where there is no such
    folder; `val_size` 0 holds out none. `classes` reads folder names, so it needs the disk. Raises UserError naming
    the key, the folder or the file, from `prepare_data` at the latest.
    """

    name = "image_folder"
    num_views = None

    def __init__(
        self,
        root: str,
        *,
        image_size: int = 224,
        val_size: float = 0.1,
        test_size: float = 0.1,
        split_seed: int = 0,
        normalize: Mapping[str, Any] | Normalize = IMAGENET,
        augment: Mapping[str, Any] = DEFAULT_AUGMENT,
        batch_size: int = 64,
        global_batch_size: int | None = None,
        eval_batch_size: int | None = None,
        num_workers: int | None = None,
        verify: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            normalize=normalize,
            batch_size=batch_size,
            global_batch_size=global_batch_size,
            eval_batch_size=eval_batch_size,
            split_seed=split_seed,
            seed=seed,
        )
        if not isinstance(root, str | Path):
            raise UserError(f"data.root must be a folder, got {root!r}")
        self.root = Path(root).expanduser()
        self.image_size = integer("data.image_size", image_size, least=1)
        self.val_size = number("data.val_size", val_size, least=0, most=0.9)
        self.test_size = number("data.test_size", test_size, above=0, most=0.9)
        check_keys("data.augment", augment, ("min_area", "flip"))
        self.augment = {**DEFAULT_AUGMENT, **augment}
        number("data.augment.min_area", self.augment["min_area"], above=0, most=1)
        for key, value in (("data.augment.flip", self.augment["flip"]), ("data.verify", verify)):
            if not isinstance(value, bool):
                raise UserError(f"{key} must be true or false, got {value!r}")
        if num_workers is None:
            num_workers = min(8, os.cpu_count() or 1)
        self.num_workers = integer("data.num_workers", num_workers, least=0)
        self.verify, self._verified = verify, False

    @cached_property
    def _scanned(self) -> tuple[list[str], dict[str, Photos]]:
        return scan(self.root)

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their indices: the folders of `train`. Raises UserError if they are not there."""
        return self._scanned[0]

    def prepare_data(self) -> None:
        """Looks at all folders and decodes every photo, so that none stops a training. Raises UserError."""
        photos = [photo for part in self._scanned[1].values() for photo in part]
        if self.verify and not self._verified:
            verify(photos, self.image_size)
            self._verified = True

    def setup(self, stage: str | None = None) -> None:
        """Fills `splits` once, whatever the stage; a line tells what is held out. Raises UserError."""
        if self.splits:
            return
        photos = {"val": [], **self._scanned[1]}
        for split, fraction in (("test", self.test_size), ("val", self.val_size)):
            if not photos.get(split) and fraction:
                photos["train"], photos[split] = self._hold_out(photos["train"], split, fraction)
        size, min_area, flip = self.image_size, self.augment["min_area"], self.augment["flip"]
        train = v2.Compose([v2.RandomResizedCrop(size, scale=(min_area, 1.0)), v2.RandomHorizontalFlip(0.5 * flip)])
        plain = center(size, MARGIN)
        splits: tuple[Split, ...] = ("train", "val", "test")
        self.splits = {
            split: StreamedImages(
                photos[split],
                train if split == "train" else plain,
                self.normalize,
                self.num_workers,
                keep_workers=split == "train",
            )
            for split in splits
        }

    def _hold_out(self, photos: Photos, split: str, fraction: float) -> tuple[Photos, Photos]:
        labels = torch.tensor([label for _, label in photos])
        rest, taken = stratified_fraction(labels, fraction, self.split_seed)
        left = torch.bincount(labels[rest], minlength=self.num_classes)
        if not left.all():
            name = self.classes[int(left.argmin())]
            raise UserError(
                f"too few images to hold out a {split} split: class {name} of {self.root / 'train'} would have none "
                f"left to train; add images, make a folder {self.root / split}, or lower data.{split}_size"
            )
        rank_zero_only(print)(
            f"{self.root / split} is missing: held out {len(taken)} of {len(photos)} training images as {split} "
            f"(data.{split}_size={fraction}, data.split_seed={self.split_seed})"
        )
        return [photos[i] for i in rest.tolist()], [photos[i] for i in taken.tolist()]

    def identity(self) -> dict[str, Any]:
        """See `DataModule.identity`; reads every photo once."""
        return {
            "name": self.name,
            "normalize": self.normalize._asdict(),
            "augment": dict(self.augment),
            "image_size": self.image_size,
            "sizes": [self.val_size, self.test_size],
            "split_seed": self.split_seed,
            "files": self._files,
        }

    @cached_property
    def _files(self) -> str:
        """Hash of the paths and contents of all photos."""
        paths = [path for part in self._scanned[1].values() for path, _ in part]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
            contents = list(pool.map(lambda path: hashlib.sha256(path.read_bytes()).hexdigest(), paths))
        names = [path.relative_to(self.root).as_posix() for path in paths]
        return hashlib.sha256(json.dumps([names, contents]).encode()).hexdigest()


def center(size: int, margin: float = 1.0) -> v2.Transform:
    """A photo to its middle, `size` pixels square, after its shorter side was made `margin · size` pixels long."""
    return v2.Compose([v2.Resize(round(size * margin)), v2.CenterCrop(size)])
