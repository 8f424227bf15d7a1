"""Two images in one (mixup, cutmix), as a pure function of (seed, epoch, sample index) like every other augmentation.

Teacher and student are shown the same mixed image ("function matching", arXiv 2106.05237): the teacher's answer to it
is the target, so mixing makes endlessly many images of the few there are.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.hashing import random_bits
from kd_lightning.utils.checks import number

_PARTNER, _SHARE, _Y, _X, _WHICH, _VIEW = 11, 12, 13, 14, 15, 16  # salts, see augment.py
_STEPS = 4096  # quantiles of the beta distribution that shares are drawn from


class Shares(NamedTuple):
    """Random numbers of mixed images, drawn by `Mixing.draw`, `[N]` each."""

    cut: Tensor
    """True for cutmix, False for mixup."""
    share: Tensor
    """Larger part, in [0.5, 1]."""
    side: Tensor
    """Side in pixels of the square that cutmix takes."""
    top: Tensor
    left: Tensor

    def split(self, size: int) -> list["Shares"]:
        """Return the parts of `size` samples each."""
        return [Shares(*parts) for parts in zip(*(tensor.split(size) for tensor in self), strict=True)]

    def weights(self, size: int) -> Tensor:
        """Return what each pixel keeps of the sample itself, in [0, 1]: `[N, 1, size, size]`."""
        pixel = torch.arange(size, device=self.share.device)

        def covered(start: Tensor) -> Tensor:
            return (pixel >= start[:, None]) & (pixel < (start + self.side)[:, None])

        square = covered(self.top)[:, :, None] & covered(self.left)[:, None, :]
        whole = self.share[:, None, None].expand(-1, size, size)
        return torch.where(self.cut[:, None, None], (~square).to(whole.dtype), whole)[:, None]


@dataclass(frozen=True)
class Mixing:
    """Mixup and cutmix with shares drawn from Beta(a, a); if both are given, each image has one or the other.

    Raises:
        UserError: If a value is not a number of at least 0; the message names `data.augment.*`.
    """

    mixup: float = 0.0
    """The a of mixup; 0 turns it off."""
    cutmix: float = 0.0
    """The a of cutmix; 0 turns it off."""

    def __post_init__(self) -> None:
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            # as floats, so that 0 and 0.0 are one data set
            object.__setattr__(self, name, number(f"data.augment.{name}", value, ge=0))

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def partner(self, seed: int, epoch: int, index: Tensor, samples: int, views: int) -> tuple[Tensor, Tensor]:
        """Return the sample and its view with which each of `index` `[N]` is mixed: `[N]` each.

        They come from all samples, not the batch: so batch size, order and number of processes change nothing.

        Args:
            samples: Number of samples to choose from.
            views: Number of views of a sample.
        """
        other = random_bits(seed, epoch, _PARTNER, index) % samples
        return other, random_bits(seed, epoch, _VIEW, index) % views

    def draw(self, seed: int, epoch: int, index: Tensor, size: int) -> Shares:
        """Draw what each of `index` `[N]` keeps of itself; images are `size` pixels high and wide.

        mixup (arXiv 1710.09412) keeps the same share everywhere; cutmix (arXiv 1905.04899) keeps nothing in a square
        and everything around it.
        """
        chance = random_bits(seed, epoch, _SHARE, index) % _STEPS
        if self.mixup and self.cutmix:
            cut = random_bits(seed, epoch, _WHICH, index) % 2 == 1
        else:
            cut = torch.full_like(index, bool(self.cutmix), dtype=torch.bool)
        share = torch.where(cut, _shares(self.cutmix, chance), _shares(self.mixup, chance))
        side = (size * (1 - share).sqrt()).long()
        top, left = (random_bits(seed, epoch, salt, index) % size - side // 2 for salt in (_Y, _X))
        return Shares(cut, share, side, top, left)


def _shares(a: float, chance: Tensor) -> Tensor:
    """Return the larger part of a Beta(a, a) split at quantile `chance` of 4096, in [0.5, 1]; 1 where a is 0."""
    return _quantiles(a).to(chance.device)[chance]


@lru_cache(maxsize=8)
def _quantiles(a: float) -> Tensor:
    if not a:
        return torch.ones(_STEPS)
    from scipy.stats import beta  # takes a second to import

    split = torch.from_numpy(beta.ppf((np.arange(_STEPS) + 0.5) / _STEPS, a, a)).float()
    return torch.maximum(split, 1 - split)
