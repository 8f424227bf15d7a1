"""A network that trains, but that no exporter can follow."""

import torch
from torch import Tensor, nn


class Capricious(nn.Module):
    """Answers by another layer if the images are bright: its graph depends on values."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.dark, self.bright = nn.Linear(3, num_classes), nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        layer = self.bright if torch.count_nonzero(means > 0) > len(means) else self.dark
        return layer(means) + 0 * (self.dark(means) + self.bright(means))
