"""Photos of any size, read by worker processes; what happens to each depends on (seed, epoch, index) alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kd_lightning.data.hashing import random_bits
from kd_lightning.data.images.folder import Photos, open_rgb
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.types import Batch

_STREAM = 4  # salt, see augment.py
Key = tuple[int, int, int]
"""(seed, epoch, index)"""


class _Photos(Dataset[tuple[Tensor, int, int]]):
    def __init__(self, photos: Photos, transform: Callable[[Image.Image], Image.Image]) -> None:
        self.photos, self.transform = photos, transform

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        path, label = self.photos[key[2]]
        image = open_rgb(Path(path))
        with torch.random.fork_rng(devices=[]):  # the transforms know only the global generator of the CPU
            torch.default_generator.manual_seed(int(random_bits(*key[:2], _STREAM, key[2])))
            image = self.transform(image)
        return torch.from_numpy(np.array(image)), label, key[2]


class StreamedImages:
    """One split as files; `transform` makes every photo the same size, with torch's generator as its only chance."""

    def __init__(
        self,
        photos: Photos,
        transform: Callable[[Image.Image], Image.Image],
        normalize: Normalize,
        num_workers: int,
        keep_workers: bool,
    ) -> None:
        self.photos, self.normalize = photos, normalize
        self._dataset = _Photos(photos, transform)
        self._num_workers, self._keep_workers = num_workers, keep_workers and num_workers > 0
        self._keys: list[list[Key]] = []
        self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        return len(self.photos)

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        """See `Source`. Only bytes travel between processes; they become floats on `device`."""
        self._keys[:] = [[(seed, epoch, i) for i in part.tolist()] for part in order.split(batch_size) if len(part)]
        for pixels, labels, index in self._workers(device):
            pixels, labels, index = (t.to(device, non_blocking=True) for t in (pixels, labels, index))
            yield Batch(self.normalize(pixels), labels, index)

    def _workers(self, device: torch.device) -> DataLoader[Any]:
        if self._loader is None or not self._keep_workers:
            self._loader = DataLoader(
                self._dataset,
                batch_sampler=self._keys,
                num_workers=self._num_workers,
                persistent_workers=self._keep_workers,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # else every epoch draws from the global one
            )
        return self._loader
