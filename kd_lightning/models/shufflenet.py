"""ShuffleNet V1 (Zhang et al., arXiv 1707.01083) and V2 (Ma et al., arXiv 1807.11164) for small images.

The distillation literature's variants: a 1×1 stem without stride, and no max pooling.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.models.init import kaiming


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves the channels of `groups` equal groups, `[B, C, H, W]` to the same shape."""
    return F.channel_shuffle(x, groups)


class BlockV1(nn.Module):
    """Grouped 1×1, shuffle, depthwise 3×3, grouped 1×1. With stride 2 the pooled input is appended, not added."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        new = outputs - inputs if stride == 2 else outputs
        middle = new // 4
        # The 24 channels of the stem are too few to group.
        self.groups = 1 if inputs == 24 else groups
        self.stride = stride
        self.reduce = _conv_bn(inputs, middle, 1, groups=self.groups)
        self.depthwise = _conv_bn(middle, middle, 3, stride, groups=middle)
        self.expand = _conv_bn(middle, new, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(F.relu(self.reduce(x)), self.groups)
        y = self.expand(F.relu(self.depthwise(y)))
        if self.stride == 2:
            return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, padding=1)], dim=1))
        return F.relu(y + x)


class ShuffleNetV1(nn.Module):
    """ShuffleNet 1× with 3 groups. Images `[B, 3, H, W]` to logits `[B, num_classes]`; stages at 1/2, 1/4, 1/8."""

    stage_names = ("layer1", "layer2", "layer3")
    head_name = "fc"

    def __init__(self, num_classes: int, groups: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_bn(3, 24, 1), nn.ReLU())
        self.layer1 = nn.Sequential(BlockV1(24, 240, 2, groups), *(BlockV1(240, 240, 1, groups) for _ in range(3)))
        self.layer2 = nn.Sequential(BlockV1(240, 480, 2, groups), *(BlockV1(480, 480, 1, groups) for _ in range(7)))
        self.layer3 = nn.Sequential(BlockV1(480, 960, 2, groups), *(BlockV1(960, 960, 1, groups) for _ in range(3)))
        self.fc = nn.Linear(960, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.fc(x.mean((2, 3)))


class BlockV2(nn.Module):
    """One half of the channels passes, the other is transformed; with stride 2 both branches see all channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        seen = inputs if stride == 2 else half
        self.stride = stride
        self.pass_by: nn.Module = nn.Identity()
        if stride == 2:
            self.pass_by = nn.Sequential(
                _conv_bn(inputs, inputs, 3, 2, groups=inputs), _conv_bn(inputs, half, 1), nn.ReLU()
            )
        self.transform = nn.Sequential(
            _conv_bn(seen, half, 1),
            nn.ReLU(),
            _conv_bn(half, half, 3, stride, groups=half),
            _conv_bn(half, half, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = (x, x) if self.stride == 2 else x.chunk(2, dim=1)
        return shuffle(torch.cat([self.pass_by(a), self.transform(b)], dim=1), 2)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 1×. Images `[B, 3, H, W]` to logits `[B, num_classes]`; `last` is the final 1×1 convolution."""

    stage_names = ("layer1", "layer2", "layer3", "last")
    head_name = "fc"

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_bn(3, 24, 1), nn.ReLU())
        self.layer1 = nn.Sequential(BlockV2(24, 116, 2), *(BlockV2(116, 116, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(BlockV2(116, 232, 2), *(BlockV2(232, 232, 1) for _ in range(7)))
        self.layer3 = nn.Sequential(BlockV2(232, 464, 2), *(BlockV2(464, 464, 1) for _ in range(3)))
        self.last = nn.Sequential(_conv_bn(464, 1024, 1), nn.ReLU())
        self.fc = nn.Linear(1024, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(x.mean((2, 3)))


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
