"""MobileNetV2 (Sandler et al., arXiv 1801.04381) as the distillation literature uses it on CIFAR: half width."""

from torch import Tensor, nn

from kd_lightning.models.init import kaiming


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.body = nn.Sequential(
            _conv_bn(inputs, hidden, 1),
            nn.ReLU(),
            _conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU(),
            _conv_bn(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """Images `[B, 3, H, W]` to logits `[B, num_classes]`. `width` scales all but the last 1280 channels.

    Plain ReLU and a stem of stride 2, as in CRD (arXiv 1910.10699). `layer1` … `layer4` are the linear bottlenecks at
    1/2, 1/4, 1/8 and 1/16 of the resolution; `last` is the final 1×1 convolution that the pooling sees.
    """

    stage_names = ("layer1", "layer2", "layer3", "layer4", "last")
    head_name = "fc"

    def __init__(self, num_classes: int, width: float = 0.5) -> None:
        super().__init__()
        stem, c1, c2, c3, c4, c5, c6, c7 = (int(width * channels) for channels in (32, 16, 24, 32, 64, 96, 160, 320))
        self.stem = nn.Sequential(_conv_bn(3, stem, 3, 2), nn.ReLU())
        # The paper's table 2, but the row of 24 channels has stride 1: 32×32 images end at 2×2 instead of 1×1.
        self.layer1 = nn.Sequential(*_row(stem, c1, 1, 1, expansion=1), *_row(c1, c2, 2, 1))
        self.layer2 = nn.Sequential(*_row(c2, c3, 3, 2))
        self.layer3 = nn.Sequential(*_row(c3, c4, 4, 2), *_row(c4, c5, 3, 1))
        self.layer4 = nn.Sequential(*_row(c5, c6, 3, 2), *_row(c6, c7, 1, 1))
        self.last = nn.Sequential(_conv_bn(c7, 1280, 1), nn.ReLU())
        self.fc = nn.Linear(1280, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(x)))
        x = self.last(self.layer4(self.layer3(x)))
        return self.fc(x.mean((2, 3)))


def _row(inputs: int, outputs: int, blocks: int, stride: int, expansion: int = 6) -> list[nn.Module]:
    first = InvertedResidual(inputs, outputs, stride, expansion)
    return [first, *(InvertedResidual(outputs, outputs, 1, expansion) for _ in range(blocks - 1))]


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
