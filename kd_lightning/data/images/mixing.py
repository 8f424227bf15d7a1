"""Two images in one (mixup, cutmix), as a pure function of (seed, epoch, sample index) like every other augmentation.

Teacher and student are shown the same mixed image ("function matching", arXiv 2106.05237): the teacher's answer to it
is the target, so mixing makes endlessly many images of the few there are.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.stats import beta
from torch import Tensor

from kd_lightning.data.hashing import random_bits
from kd_lightning.utils.checks import number

_PARTNER, _SHARE, _Y, _X, _WHICH, _VIEW = 11, 12, 13, 14, 15, 16  # salts, see augment.py
_STEPS = 4096  # quantiles of the beta distribution that shares are drawn from


@dataclass(frozen=True)
class Mixing:
    """`mixup` and `cutmix` are the a of the Beta(a, a) that shares are drawn from; 0: not done; both: one or the other.

    Raises UserError naming `data.augment.*`.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):  # as floats, so that 0 and 0.0 are one data set
            object.__setattr__(self, name, number(f"data.augment.{name}", getattr(self, name), least=0))

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def partner(self, seed: int, epoch: int, index: Tensor, samples: int, views: int) -> tuple[Tensor, Tensor]:
        """Which of the split's `samples`, and in which of its `views`, each of `index` `[B]` is mixed with: `[B]` each.

        Out of the whole split, not the batch: so batch size, order and number of processes change nothing.
        """
        other = random_bits(seed, epoch, _PARTNER, index) % samples
        return other, random_bits(seed, epoch, _VIEW, index) % views

    def weights(self, seed: int, epoch: int, index: Tensor, size: int) -> Tensor:
        """What each pixel keeps of the sample itself, in [0, 1]: `[B, 1, size, size]`; on average at least one half.

        mixup (arXiv 1710.09412): the same everywhere. cutmix (arXiv 1905.04899): 0 in a square, 1 around it.
        """
        chance = random_bits(seed, epoch, _SHARE, index) % _STEPS
        cut = random_bits(seed, epoch, _WHICH, index) % 2 == 1 if self.mixup and self.cutmix else bool(self.cutmix)
        cut = torch.as_tensor(cut, device=index.device).expand(len(index))
        share = torch.where(cut, _shares(self.cutmix, chance), _shares(self.mixup, chance))
        side = (size * (1 - share).sqrt()).long()
        pixel = torch.arange(size, device=index.device)

        def covered(salt: int) -> Tensor:
            start = random_bits(seed, epoch, salt, index) % size - side // 2
            return (pixel >= start[:, None]) & (pixel < (start + side)[:, None])

        square = covered(_Y)[:, :, None] & covered(_X)[:, None, :]
        whole = share[:, None, None].expand(-1, size, size)
        return torch.where(cut[:, None, None], (~square).to(whole.dtype), whole)[:, None]


def _shares(a: float, chance: Tensor) -> Tensor:
    """The larger part of a Beta(a, a) split at quantile `chance` of 4096, in [0.5, 1]; 1 where a is 0."""
    return _quantiles(a).to(chance.device)[chance]


@lru_cache(maxsize=8)
def _quantiles(a: float) -> Tensor:
    if not a:
        return torch.ones(_STEPS)
    split = torch.from_numpy(beta.ppf((torch.arange(_STEPS).numpy() + 0.5) / _STEPS, a, a)).float()
    return torch.maximum(split, 1 - split)
