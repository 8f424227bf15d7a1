"""Wide residual networks (Zagoruyko and Komodakis, arXiv 1605.07146): pre-activation blocks, without dropout."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.models.init import kaiming


class Block(nn.Module):
    """BN-ReLU-conv twice; where the width changes, a 1×1 convolution carries the *activated* input past them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        past = x if self.shortcut is None else self.shortcut(y)
        return past + self.conv2(F.relu(self.bn2(self.conv1(y))))


class WideResNet(nn.Module):
    """WRN-`depth`-`width` with `depth = 6n + 4`. Images `[B, 3, H, W]` to logits `[B, num_classes]`.

    `layer1` … `layer3` give sums before any activation; `last` is the BatchNorm and ReLU that the pooling sees.
    """

    stage_names = ("layer1", "layer2", "last")
    head_name = "fc"

    def __init__(self, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.layer1 = _stage(blocks, 16, 16 * width, 1)
        self.layer2 = _stage(blocks, 16 * width, 32 * width, 2)
        self.layer3 = _stage(blocks, 32 * width, 64 * width, 2)
        self.last = nn.Sequential(nn.BatchNorm2d(64 * width), nn.ReLU())
        self.fc = nn.Linear(64 * width, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(self.last(x).mean((2, 3)))


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))
