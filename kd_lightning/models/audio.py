"""Classifiers of recordings: from log-mel spectrograms `[B, 1, bands, frames]`, of any number of frames.

The layers of `stage_names` give maps `[B, D, bands', frames']`, so that methods that compare the feature maps of images
compare these.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from kd_lightning.models.init import kaiming


class AudioCNN(nn.Module):
    """Pairs of 3×3 convolutions, each pair at half the resolution of the one before; mean over the map.

    Args:
        num_classes: Number of logits.
        widths: Channels of each pair.
        dropout: Probability, before the classifier.
    """

    head_name = "fc"

    def __init__(self, num_classes: int, widths: Sequence[int] = (24, 48, 96, 192), dropout: float = 0.2) -> None:
        super().__init__()
        self.stages, self.stage_names = _stages(widths)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.fc(self.dropout(x.mean((2, 3))))


class AudioCRNN(nn.Module):
    """The convolutions of `audio_cnn`, a GRU in both directions along time, and the mean of its states.

    Args:
        num_classes: Number of logits.
        bands: Mel bands of the spectrogram.
        widths: Channels of each pair of convolutions.
        hidden: Channels of the GRU in each direction.
        dropout: Probability, before the GRU and before the classifier.
    """

    head_name = "fc"

    def __init__(
        self,
        num_classes: int,
        bands: int,
        widths: Sequence[int] = (24, 48, 96),
        hidden: int = 96,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.stages, self.stage_names = _stages(widths)
        rows = bands
        for _ in widths:
            rows = -(-rows // 2)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(widths[-1] * rows, hidden, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        states, _ = self.gru(self.dropout(x.flatten(1, 2).transpose(1, 2)))
        return self.fc(self.dropout(states.mean(1)))


class AudioDSCNN(nn.Module):
    """A convolution and depthwise-separable ones (Zhang et al., arXiv 1711.07128), for a microcontroller.

    Args:
        num_classes: Number of logits.
        width: Channels of a block; the first convolution has half of them.
        depth: Number of depthwise-separable blocks; the first one halves the resolution.
        dropout: Probability, before the classifier.
    """

    head_name = "fc"

    def __init__(self, num_classes: int, width: int = 64, depth: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(1, width // 2, 5, 2))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *_convolution(inputs, inputs, 3, stride, groups=inputs),
                *_convolution(inputs, width, 1),
            )
            for inputs, stride in [(width // 2, 2), *[(width, 1)] * (depth - 1)]
        )
        self.stage_names = ("stem", *(f"blocks.{i}" for i in range(depth)))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(self.dropout(x.mean((2, 3))))


AUDIO = {"audio_cnn": AudioCNN, "audio_crnn": AudioCRNN, "audio_dscnn": AudioDSCNN}
"""Built-in networks for data with mel `bands`."""


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _stages(widths: Sequence[int]) -> tuple[nn.ModuleList, tuple[str, ...]]:
    """Return pairs of convolutions of which each begins with stride 2, and their names."""
    stages = nn.ModuleList(
        nn.Sequential(*_convolution(inputs, outputs, 3, 2), *_convolution(outputs, outputs, 3))
        for inputs, outputs in zip((1, *widths), widths, strict=False)
    )
    return stages, tuple(f"stages.{i}" for i in range(len(widths)))
