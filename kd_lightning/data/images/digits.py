"""The 1,797 handwritten digits of 8 × 8 pixels that come with scikit-learn: a real task without a download."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.images.augment import Augment
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.data.images.resident_module import ResidentDataModule
from kd_lightning.data.split import stratified
from kd_lightning.utils.checks import integer

ALL = 1797


class DigitsDataModule(ResidentDataModule):
    """UCI digits, grey repeated to three channels.

    Args:
        test_size: Number of images held out for the test, stratified by `split_seed`.
        common: Arguments of `ResidentDataModule`. Nothing is flipped by default: a mirrored digit is another sign.
    """

    name = "digits"
    image_size = 8

    def __init__(
        self,
        *,
        test_size: int = 360,
        val_size: int = 144,
        normalize: Mapping[str, Any] | Normalize = Normalize((0.3053,) * 3, (0.3759,) * 3),  # noqa: B008 - immutable
        augment: Mapping[str, Any] | Augment = Augment(pad=1),  # noqa: B008 - frozen
        batch_size: int = 128,
        **common: Any,
    ) -> None:
        self.test_size = integer("data.test_size", test_size, ge=10, le=ALL - 20)
        self.total = ALL - self.test_size
        super().__init__(val_size=val_size, normalize=normalize, augment=augment, batch_size=batch_size, **common)

    @property
    def classes(self) -> list[str]:
        return list("0123456789")

    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from sklearn.datasets import load_digits  # which other data sets need not import

        digits = load_digits()
        # The 17 grey values 0..16 are spread over 0..255.
        grey = torch.from_numpy(np.round(digits.images * 15.9375).astype(np.uint8))
        images, labels = grey[..., None].expand(-1, -1, -1, 3), torch.from_numpy(digits.target.astype(np.int64))
        rest, test = stratified(labels, self.test_size, self.split_seed)
        return images[rest], labels[rest], images[test], labels[test]
