"""VGG with BatchNorm for small images (Simonyan and Zisserman, arXiv 1409.1556), with one linear head as in CRD."""

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.models.init import kaiming

CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2)}
"""Depth → convolutions in each of the five stages. The depths keep VGG's names, which count three Linear layers."""


class VGG(nn.Module):
    """Five stages of 3×3 convolutions, global average, one Linear. Images `[B, 3, H, W]` to logits `[B, num_classes]`.

    Resolution is halved after each of the first three stages, so 8×8 images end at 1×1; images of 64 pixels or more are
    halved once more, so that 32×32 and 64×64 images both end at 4×4.
    """

    stage_names = ("layer1", "layer2", "layer3", "layer4", "layer5")
    head_name = "fc"

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        one, two, three, four, five = CONVOLUTIONS[depth]
        self.layer1 = _stage(one, 3, 64)
        self.layer2 = _stage(two, 64, 128)
        self.layer3 = _stage(three, 128, 256)
        self.layer4 = _stage(four, 256, 512)
        self.layer5 = _stage(five, 512, 512)
        self.fc = nn.Linear(512, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        x = F.max_pool2d(self.layer1(x), 2)
        x = F.max_pool2d(self.layer2(x), 2)
        x = F.max_pool2d(self.layer3(x), 2)
        x = _halve_if_large(self.layer4(x), size)
        x = self.layer5(x)
        return self.fc(x.mean((2, 3)))


@torch.fx.wrap  # a decision that a traced graph keeps open
def _halve_if_large(x: Tensor, size: int) -> Tensor:
    return F.max_pool2d(x, 2) if size >= 64 else x


def _stage(count: int, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(count):
        convolution = nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
