"""Recordings on the training device, from which spectrograms are made there."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.data.audio.augment import AudioAugment
from kd_lightning.data.audio.logmel import LogMel
from kd_lightning.data.audio.read import FULL
from kd_lightning.types import Batch, Source


class ResidentRecordings(Source):
    """One split.

    Args:
        waves: int16 `[N, samples]`.
        labels: int64 `[N]`.
        logmel: The front end; it moves with the split.
        augment: Augmentation.
    """

    def __init__(self, waves: Tensor, labels: Tensor, logmel: LogMel, augment: AudioAugment) -> None:
        self.margin = augment.most(logmel.sample_rate)
        self.padded = F.pad(waves, (self.margin, self.margin))
        self.labels, self.logmel, self.augment = labels, logmel, augment

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ResidentRecordings":
        """Move the split itself, so that it is held once."""
        self.padded, self.labels = self.padded.to(device), self.labels.to(device)
        self.logmel.to(device)
        return self

    def plain(self) -> "ResidentRecordings":
        """Return a copy of the split without augmentation."""
        inside = self.padded[:, self.margin : self.padded.shape[1] - self.margin]
        return ResidentRecordings(inside, self.labels, self.logmel, AudioAugment())

    def waves(self, index: Tensor, view: Tensor) -> Tensor:
        """Return the waveforms of the given views `[B]` of the samples `index` `[B]`: floats `[B, samples]`."""
        start = self.margin - self.augment.shifts(index, view, self.logmel.sample_rate)
        width = self.padded.shape[1]
        where = (index * width + start)[:, None] + torch.arange(width - 2 * self.margin, device=index.device)
        return self.padded.view(-1)[where].float() / FULL

    def render(self, index: Tensor, view: Tensor) -> Tensor:
        """Return spectrograms `[B, 1, bands, frames]` of any views `[B]` of any samples `[B]`, as training shows them.

        Both int64, on the device that holds the split.
        """
        x = self.logmel(self.waves(index, view))
        if self.augment.time_mask or self.augment.band_mask:
            frames, bands = x.shape[3], x.shape[2]
            x = x.masked_fill_(self.augment.masks(index, view, frames, bands, self.logmel.hop), 0.0)
        return x

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches as `Source` says; the augmentation is that of (seed, epoch, index)."""
        self.to(device)
        order = order.to(device)
        views = self.augment.view(seed, epoch, order)
        for index, view in zip(order.split(batch_size), views.split(batch_size), strict=True):
            if len(index):  # splitting nothing gives one empty part
                yield Batch(self.render(index, view), self.labels[index], index, view)
