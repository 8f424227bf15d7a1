"""Time shift and SpecAugment as pure functions of (seed, epoch, sample index): no generator or worker matters.

Each recording has `views` different views. Which one an epoch shows is a function of (seed, epoch, index); what a view
is, of (index, view) alone. So a cache may hold a teacher's answer to each view, whatever the seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.hashing import random_bits
from kd_lightning.utils.checks import UserError, did_you_mean, integer, number

_VIEW, _SHIFT, _TIME, _BANDS = 11, 12, 13, 14  # salts: independent numbers for the same keys


@dataclass(frozen=True)
class AudioAugment:
    """Augmentation of a training recording. `AudioAugment()` leaves recordings alone.

    Raises:
        UserError: If a value is wrong; the message names `data.augment.*`.
    """

    views: int = 1
    """Number of different views of a recording."""
    shift: float = 0.0
    """Seconds by which a recording is moved at most, to either side; zeros come in."""
    time_mask: float = 0.0
    """Seconds of the widest time mask."""
    band_mask: int = 0
    """Bands of the widest frequency mask."""

    def __post_init__(self) -> None:
        integer("data.augment.views", self.views, ge=1, le=1024)
        number("data.augment.shift", self.shift, ge=0)
        number("data.augment.time_mask", self.time_mask, ge=0)
        integer("data.augment.band_mask", self.band_mask, ge=0)

    @staticmethod
    def parse(values: "Mapping[str, Any] | AudioAugment") -> "AudioAugment":
        """Return the augmentation of the keys of `data.augment`; a missing key turns its part off. Raises UserError."""
        if isinstance(values, AudioAugment):
            return values
        known = tuple(field.name for field in fields(AudioAugment))
        if not isinstance(values, Mapping):
            raise UserError(f"data.augment must have the keys {', '.join(known)}, got {values!r}")
        for key in values:
            if key not in known:
                raise UserError(f"unknown key data.augment.{key}; it has {', '.join(known)}{did_you_mean(key, known)}")
        return AudioAugment(**{str(key): value for key, value in values.items()})

    def view(self, seed: int, epoch: int, index: Tensor) -> Tensor:
        """Return the view, in [0, views), of each sample of `index` `[N]` in this epoch: `[N]`, int64."""
        return random_bits(seed, epoch, _VIEW, index) % self.views

    def most(self, sample_rate: int) -> int:
        """Return the largest shift in samples."""
        return round(self.shift * sample_rate)

    def shifts(self, index: Tensor, view: Tensor, sample_rate: int) -> Tensor:
        """Return the number of samples by which each view is moved to the right, `[N]`, int64."""
        most = self.most(sample_rate)
        return random_bits(_SHIFT, index, view) % (2 * most + 1) - most

    def masks(self, index: Tensor, view: Tensor, frames: int, bands: int, hop: float) -> Tensor:
        """Return where each view is hidden, `[N, 1, bands, frames]`, bool: one block of time and one of bands.

        SpecAugment (arXiv 1904.08779) without its warp: widths are uniform up to the widest, as are places.
        """
        time = _block(_TIME, index, view, round(self.time_mask / hop), frames)
        band = _block(_BANDS, index, view, self.band_mask, bands)
        return (band[:, :, None] | time[:, None, :])[:, None]


def _block(salt: int, index: Tensor, view: Tensor, widest: int, size: int) -> Tensor:
    """Return a random block of each view, `[N, size]`, bool."""
    width = random_bits(salt, 0, index, view) % (min(widest, size) + 1)
    start = random_bits(salt, 1, index, view) % (size - width + 1)
    place = torch.arange(size, device=index.device)
    return (place >= start[:, None]) & (place < (start + width)[:, None])
