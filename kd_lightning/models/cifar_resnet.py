"""ResNets for CIFAR (He et al., arXiv 1512.03385, section 4.2) and the wide variants used in distillation."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.models.init import kaiming


class PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the `extra` channels, half before and half after."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.extra // 2
        # The mean of one pixel. A slice's gradient is not channels_last, and slows down the layers before it on a CPU.
        kept = F.avg_pool2d(x, 1, self.stride)
        return F.pad(kept, (0, 0, 0, 0, before, self.extra - before))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if projection and (stride > 1 or inputs != outputs):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        elif stride > 1 or inputs != outputs:
            self.shortcut = PadShortcut(outputs - inputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """`depth = 6n + 2` layers: a 3×3 stem and three stages of n blocks at full, half and quarter resolution.

    Images `[B, 3, H, W]` to logits `[B, num_classes]`. `widths` are the channels of the stem and of the stages.
    Shortcuts that change shape pad (option A, without parameters: resnet20 … 110) or, with `projection`, are 1×1
    convolutions (option B: resnet8x4 and resnet32x4 of CRD, arXiv 1910.10699). The option-A nets share their parameter
    names with widespread CIFAR-10 checkpoints, but for the classifier, which is `fc` here.
    """

    stage_names = ("layer1", "layer2", "layer3")
    head_name = "fc"

    def __init__(
        self,
        depth: int,
        num_classes: int,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        projection: bool = False,
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem, first, second, third = widths
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(blocks, stem, first, 1, projection)
        self.layer2 = _stage(blocks, first, second, 2, projection)
        self.layer3 = _stage(blocks, second, third, 2, projection)
        self.fc = nn.Linear(third, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def _stage(blocks: int, inputs: int, outputs: int, stride: int, projection: bool) -> nn.Sequential:
    first = Block(inputs, outputs, stride, projection)
    return nn.Sequential(first, *(Block(outputs, outputs, 1, projection) for _ in range(blocks - 1)))
