"""Photos of any size, read by worker processes; each depends on (seed, epoch, index) alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from kd_lightning.data.hashing import random_bits
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.data.images.photo_augment import PhotoView
from kd_lightning.data.images.photos import Photos
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError

_STREAM = 4  # salt, see augment.py
Key = tuple[int, int, int]
"""(seed, epoch, index)"""
Item = tuple[Tensor, int, int]


class _Photos(Dataset[Item | UserError]):
    def __init__(self, photos: Photos, view: PhotoView) -> None:
        self.photos, self.view = photos, view

    def __getitem__(self, key: Key) -> Item | UserError:
        path, label = self.photos[key[2]]
        try:
            with torch.random.fork_rng(devices=[]):  # the transforms know only the global generator of the CPU
                torch.default_generator.manual_seed(random_bits(*key[:2], _STREAM, key[2]))
                image = self.view(path)
        except UserError as error:  # returned, as a worker process would wrap it into a traceback
            return error
        return torch.from_numpy(np.array(image)), label, key[2]


def _collate(items: list[Item | UserError]) -> Any:
    return next((item for item in items if isinstance(item, UserError)), None) or default_collate(items)


class _Keys:
    """Keys of the batches of the present epoch, made as they are needed."""

    def __init__(self) -> None:
        self.order, self.batch_size, self.seed, self.epoch = torch.empty(0, dtype=torch.int64), 1, 0, 0

    def __iter__(self) -> Iterator[list[Key]]:
        for part in self.order.split(self.batch_size):
            if len(part):  # splitting nothing gives one empty part
                yield [(self.seed, self.epoch, i) for i in part.tolist()]

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)


class StreamedImages:
    """One split as files.

    Args:
        photos: Files and labels.
        view: Reads a file as an image; all images have the same size. Its only chance is torch's global generator.
        normalize: Normalization of the pixels.
        num_workers: Processes that read; 0 reads in this one.
        keep_workers: Let them live on from epoch to epoch.
    """

    def __init__(
        self, photos: Photos, view: PhotoView, normalize: Normalize, num_workers: int, keep_workers: bool
    ) -> None:
        self.photos, self.normalize = photos, normalize
        self._dataset = _Photos(photos, view)
        self._num_workers, self._keep_workers = num_workers, keep_workers and num_workers > 0
        self._keys = _Keys()
        self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        return len(self.photos)

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches as `Source` says. Only bytes travel between processes; they become floats on `device`.

        Raises:
            UserError: If a file cannot be read; one line.
        """
        keys = self._keys
        keys.order, keys.batch_size, keys.seed, keys.epoch = order, batch_size, seed, epoch
        for batch in self._workers(device):
            if isinstance(batch, UserError):
                raise batch
            pixels, labels, index = (tensor.to(device, non_blocking=True) for tensor in batch)
            yield Batch(self.normalize(pixels), labels, index)

    def _workers(self, device: torch.device) -> DataLoader[Any]:
        if self._loader is None or not self._keep_workers:
            self._loader = DataLoader(
                self._dataset,
                batch_sampler=self._keys,
                collate_fn=_collate,
                num_workers=self._num_workers,
                persistent_workers=self._keep_workers,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # else every epoch draws from the global one
            )
        return self._loader
