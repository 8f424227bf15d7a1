"""A data set whose inputs are a dictionary, and a network for it: nothing outside `data/images` may expect images."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.data.module import DataModule
from kd_lightning.types import UNLABELED, Batch

LENGTH, VOCABULARY = 5, 12


class Tokens:
    """Sequences whose class is that of their first token; every `unlabeled`-th label is unknown."""

    def __init__(self, count: int, seed: int, unlabeled: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(VOCABULARY, (count, LENGTH), generator=generator)
        self.mask = (torch.rand(count, LENGTH, generator=generator) < 0.3).float()
        self.mask[:, 0] = 1
        self.y = self.ids[:, 0] % 3
        if unlabeled:
            self.y[::unlabeled] = UNLABELED

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        for index in order.split(batch_size):
            x = {"ids": self.ids[index].to(device), "mask": self.mask[index].to(device)}
            yield Batch(x, self.y[index].to(device), index.to(device))


class TokenDataModule(DataModule):
    """Three classes of short sequences."""

    name = "tokens"

    def setup(self, stage: str | None = None) -> None:
        self.splits = {"train": Tokens(256, 0), "val": Tokens(96, 1), "test": Tokens(120, 2, unlabeled=10)}

    @property
    def classes(self) -> list[str]:
        return ["zero", "one", "two"]

    def example(self, count: int) -> dict[str, Tensor]:
        return {"ids": torch.arange(count * LENGTH).view(count, LENGTH) % VOCABULARY, "mask": torch.ones(count, LENGTH)}

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def model_kwargs(self) -> dict[str, Any]:
        return super().model_kwargs() | {"vocabulary": VOCABULARY}


class TokenNet(nn.Module):
    """Masked mean of embeddings, the first one twice, and a linear classifier."""

    def __init__(self, num_classes: int, vocabulary: int, width: int = 16):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids)
        mean = (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.fc(torch.cat([h[:, 0], mean], 1))
