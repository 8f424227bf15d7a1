"""Small images that stay on the training device: a batch is one gather, which crops and flips on the way.

Where they do not fit, they stay in main memory, and the gathered bytes of a batch are finished on the device.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.images.augment import Augment
from kd_lightning.data.images.mixing import Shares
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.data.images.placement import Placement
from kd_lightning.types import Batch, Mixed


class ResidentImages:
    """One split as one uint8 tensor, with the black border of `augment.pad` already around every image.

    Args:
        images: uint8 `[N, H, W, 3]` with H = W.
        labels: int64 `[N]`.
        where: `data.device`, or the decision that several splits share.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, normalize: Normalize, augment: Augment, where: str | Placement = "auto"
    ) -> None:
        n, self.size, pad = len(images), images.shape[1], augment.pad
        self.normalize, self.augment, self.labels = normalize, augment, labels
        self.padded = images.new_zeros(n, self.size + 2 * pad, self.size + 2 * pad, 3)
        self.padded[:, pad : pad + self.size, pad : pad + self.size] = images
        self.partners: Tensor | None = None
        """Samples `[n]` with which others are mixed; None for all."""
        self.placement = where if isinstance(where, Placement) else Placement(where, self.padded.nbytes)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ResidentImages":
        """Move the split itself, so that it is held once."""
        self.padded, self.labels = self.padded.to(device), self.labels.to(device)
        return self

    def plain(self) -> "ResidentImages":
        """Return a copy of the split without augmentation."""
        inside = slice(self.augment.pad, self.augment.pad + self.size)
        return ResidentImages(
            self.padded[:, inside, inside], self.labels, self.normalize, Augment(), self.placement.wanted
        )

    def pixels(self, index: Tensor, view: Tensor) -> Tensor:
        """Return the given views `[B]` of the samples `index` `[B]`: uint8 `[B, H, W, 3]`."""
        rows, cols = self.augment.source(view, self.size)
        width = self.padded.shape[1]
        # Whole pixels by their number: on the CPU three times as fast as indexing with three tensors.
        where = (index[:, None, None] * width + rows[:, :, None]) * width + cols[:, None, :]
        return self.padded.view(-1, 3).index_select(0, where.flatten()).view(len(index), self.size, self.size, 3)

    def render(self, index: Tensor, view: Tensor) -> Tensor:
        """Return normalized images `[B, 3, H, W]` of any views `[B]` of any samples `[B]`, as training would show them.

        Both int64, on the device that holds the split. Raises IndexError for a view outside [0, crop_views).
        """
        if len(view) and not 0 <= int(view.min()) <= int(view.max()) < self.augment.crop_views:
            raise IndexError(f"views are in [0, {self.augment.crop_views}), got {int(view.min())}..{int(view.max())}")
        return self.normalize(self.pixels(index, view))

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches as `Source` says; the augmentation is that of (seed, epoch, index).

        The split moves to its home at the first call. With `data.device=cpu` batches are finished in main memory, else
        on `device`.
        """
        home = self.placement.home(device)
        self.to(home)
        target = home if self.placement.wanted == "cpu" else device
        # All random numbers of the epoch are drawn at once: a step launches few kernels and waits for none.
        order = order.to(home)
        there = order.to(target)
        views = self.augment.view(seed, epoch, order)
        parts = [tensor.split(batch_size) for tensor in (order, views, there)]
        mixing: Any = repeat(None)
        corners: Any = repeat(None)
        if self.augment.mixing:
            pool = torch.arange(len(self)) if self.partners is None else self.partners
            other, seen = self.augment.mixing.partner(seed, epoch, order, len(pool), self.augment.crop_views)
            other = pool.to(home)[other]
            shares = self.augment.mixing.draw(seed, epoch, there, self.size)
            mixing = zip(other.split(batch_size), seen.split(batch_size), shares.split(batch_size), strict=True)
        if self.augment.cutout:
            corners = self.augment.corners(seed, epoch, there, self.size).split(batch_size)
        for index, view, index_there, mixed, corner in zip(*parts, mixing, corners, strict=False):
            if not len(index):  # splitting nothing gives one empty part
                return
            yield self._batch(index, view, index_there, mixed, corner)

    def _batch(
        self,
        index: Tensor,
        view: Tensor,
        there: Tensor,
        mixing: tuple[Tensor, Tensor, Shares] | None,
        corners: Tensor | None,
    ) -> Batch:
        """Return one batch on the device of `there`, the copy of `index` `[B]` on that device."""
        device = there.device
        x, y, mixed = self.normalize(_send(self.pixels(index, view), device)), self.labels[index], None
        if mixing is not None:
            other, seen, shares = mixing
            keep = shares.weights(self.size)
            x = torch.lerp(self.normalize(_send(self.pixels(other, seen), device)), x, keep)
            mixed = Mixed(_send(self.labels[other], device), keep.mean((1, 2, 3)), _send(other, device))
        if corners is not None:
            x = x.masked_fill_(self.augment.holes(corners, self.size)[:, None], 0.0)
        numbered = None if self.augment.num_views is None else _send(view, device)
        return Batch(x, _send(y, device), there, numbered, mixed)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a copy on `device`, without making the CPU wait for it; `tensor` itself if it is there."""
    if tensor.device.type == device.type:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
