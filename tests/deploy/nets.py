"""Networks and data that the deployment commands meet seldom."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.data import DataModule, DigitsDataModule
from kd_lightning.types import Batch


class Capricious(nn.Module):
    """Answers by another layer if the images are bright: no exporter can follow it."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.dark, self.bright = nn.Linear(3, num_classes), nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        layer = self.bright if torch.count_nonzero(means > 0) > len(means) else self.dark
        return layer(means) + 0 * (self.dark(means) + self.bright(means))


class MaskNet(nn.Module):
    """Takes the entries of `MaskedDigits` as keyword arguments."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.embed = nn.Embedding(17, 8)
        self.fc = nn.Linear(8 * width, num_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.fc((self.embed(ids) * mask[..., None]).flatten(1))


class _Source:
    def __init__(self, images: Any):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, *args: Any) -> Iterator[Batch]:
        for batch in self.images.batches(*args):
            grey = batch.x[:, 0].flatten(1)
            ids = ((grey - grey.min()) / (grey.max() - grey.min()) * 16).round().long()
            yield batch._replace(x={"ids": ids, "mask": (ids > 0).float()})


class MaskedDigits(DataModule):
    """Digits as 64 grey values `ids`, int64, and `mask`, float32: no images any more."""

    name = "masked_digits"

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            digits = DigitsDataModule(batch_size=self.batch_size, augment={})
            digits.setup()
            self.splits = {split: _Source(source) for split, source in digits.splits.items()}

    @property
    def classes(self) -> list[str]:
        return list("0123456789")

    def example(self, count: int) -> dict[str, Tensor]:
        return {"ids": torch.arange(64).remainder(17).expand(count, 64), "mask": torch.ones(count, 64)}

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def model_kwargs(self) -> dict[str, Any]:
        return super().model_kwargs() | {"width": 64}
