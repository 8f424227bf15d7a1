"""Crop, flip, cutout and mixing as pure functions of (seed, epoch, sample index): no generator or worker matters.

A crop out of an image padded by `pad` pixels, flipped or not, is one of finitely many *views*, numbered
`(y · span + x) · flips + flip` with offsets y, x in [0, span), span = 2·pad + 1: 162 of them for pad 4 with flip.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.hashing import random_bits
from kd_lightning.data.images.mixing import Mixing
from kd_lightning.utils.checks import UserError, did_you_mean, integer

_VIEW, _CUTOUT_Y, _CUTOUT_X = 1, 2, 3  # salts: independent numbers for the same (seed, epoch, index)


@dataclass(frozen=True)
class Augment:
    """Augmentation of a small training image; all sizes in pixels. `Augment()` leaves images alone: one view, number 0.

    Raises:
        UserError: If a value is wrong; the message names `data.augment.*`.
    """

    pad: int = 0
    """Black border from which the crop is taken; 0: no crop."""
    flip: bool = False
    """Mirror every second view left to right."""
    cutout: int = 0
    """Side of a square, centred anywhere in the image, that is set to the mean; 0: none."""
    mixing: Mixing = Mixing()  # noqa: RUF009 - frozen
    """Part of another image in it."""

    def __post_init__(self) -> None:
        integer("data.augment.pad", self.pad, ge=0)
        integer("data.augment.cutout", self.cutout, ge=0)
        if not isinstance(self.flip, bool):
            raise UserError(f"data.augment.flip must be true or false, got {self.flip!r}")

    @staticmethod
    def parse(values: "Mapping[str, Any] | Augment") -> "Augment":
        """Return the augmentation of the keys of `data.augment`; a missing key turns its part off. Raises UserError."""
        if isinstance(values, Augment):
            return values
        check_keys("data.augment", values, ("pad", "flip", "cutout", "mixup", "cutmix"))
        mixing = Mixing(**{str(key): value for key, value in values.items() if key in ("mixup", "cutmix")})
        own = {str(key): value for key, value in values.items() if key in ("pad", "flip", "cutout")}
        return Augment(**own, mixing=mixing)

    @property
    def span(self) -> int:
        """Number of offsets along one axis."""
        return 2 * self.pad + 1

    @property
    def crop_views(self) -> int:
        """Number of crops times flips."""
        return self.span**2 * (1 + self.flip)

    @property
    def num_views(self) -> int | None:
        """Number of different results per image; None with cutout or mixing, whose results are not numbered."""
        return None if self.cutout or self.mixing else self.crop_views

    @property
    def center(self) -> int:
        """The view that shows the image as it is."""
        return self.pad * (self.span + 1) * (1 + self.flip)

    def view(self, seed: int, epoch: int, index: Tensor) -> Tensor:
        """Return the view, in [0, crop_views), of each sample of `index` `[N]` in this epoch: `[N]`, int64."""
        return random_bits(seed, epoch, _VIEW, index) % self.crop_views

    def source(self, view: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return rows and columns of the padded image (both `[B, size]`) from which each view `[B]` is read."""
        flips = 1 + self.flip
        pixel = torch.arange(size, device=view.device)
        mirrored = (view % flips == 1)[:, None]
        rows = (view // (flips * self.span))[:, None] + pixel
        cols = (view // flips % self.span)[:, None] + torch.where(mirrored, size - 1 - pixel, pixel)
        return rows, cols

    def corners(self, seed: int, epoch: int, index: Tensor, size: int) -> Tensor:
        """Return top and left of the square that cutout removes from each sample of `index` `[N]`: `[N, 2]`, int64."""
        centers = [random_bits(seed, epoch, salt, index) % size for salt in (_CUTOUT_Y, _CUTOUT_X)]
        return torch.stack(centers, dim=1) - self.cutout // 2

    def holes(self, corners: Tensor, size: int) -> Tensor:
        """Return the pixels inside the squares of cutout at `corners` `[B, 2]`: `[B, size, size]`, bool."""
        pixel = torch.arange(size, device=corners.device)
        rows, cols = ((pixel >= start[:, None]) & (pixel < start[:, None] + self.cutout) for start in corners.unbind(1))
        return rows[:, :, None] & cols[:, None, :]


def check_keys(key: str, values: Any, known: tuple[str, ...]) -> None:
    """Raise UserError unless `values` is a mapping with no keys but `known`."""
    if not isinstance(values, Mapping):
        raise UserError(f"{key} must have the keys {', '.join(known)}, got {values!r}")
    for name in values:
        if name not in known:
            raise UserError(f"unknown key {key}.{name}; it has {', '.join(known)}{did_you_mean(name, known)}")
