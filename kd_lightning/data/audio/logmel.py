"""Log-mel spectrograms: what a network sees of a recording."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.utils.checks import UserError, integer, number

FLOOR = 1e-6
"""Added to the power before the logarithm: what is some 80 dB below full scale counts as silence."""
CENTER, SPREAD = -5.0, 5.0
"""Fixed, so that no student depends on the recordings of a split: log-power becomes about 0 ± 1."""


class LogMel(nn.Module):
    """Waveforms `[B, samples]`, floats in [−1, 1], to spectrograms `[B, 1, bands, frames]`.

    `(ln(M · |STFT|² + 1e-6) + 5) / 5`: periodic Hann window, frames centered with zeros around the recording, and
    triangular filters M between 0 and half the sample rate that are equally wide on the mel scale
    `2595 · log10(1 + f / 700)` (the numbers of librosa with `htk=True, norm=None, pad_mode="constant"`).

    Args:
        sample_rate: Samples per second.
        seconds: Length of a recording.
        window: Seconds of a frame.
        hop: Seconds from frame to frame.
        bands: Number of filters.

    Raises:
        UserError: If a value is wrong; the message names `data.*`.
    """

    hann: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int = 16_000,
        seconds: float = 1.0,
        window: float = 0.032,
        hop: float = 0.03,
        bands: int = 32,
    ) -> None:
        super().__init__()
        self.sample_rate = integer("data.sample_rate", sample_rate, ge=1000, le=192_000)
        self.seconds = number("data.seconds", seconds, gt=0, le=60)
        self.window = number("data.window", window, gt=0, le=1)
        self.hop = number("data.hop", hop, gt=0, le=1)
        self.bands = integer("data.bands", bands, ge=8, le=256)
        self.samples = round(self.sample_rate * self.seconds)
        """Samples of a recording."""
        self.size, self.step = (round(self.sample_rate * value) for value in (self.window, self.hop))
        if not 1 <= self.step <= self.size <= self.samples:
            raise UserError(
                f"data.hop must be a sample or more, and at most data.window, and this at most data.seconds; "
                f"got {hop}, {window} and {seconds} seconds at {sample_rate:,} Hz"
            )
        filters = mel_filters(self.sample_rate, self.size, self.bands)
        if not filters.any(1).all():
            raise UserError(
                f"data.bands={bands} are too many for data.window={window} at {sample_rate} Hz: some would hear "
                "nothing; take fewer bands or a longer window"
            )
        self.register_buffer("hann", torch.hann_window(self.size), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)

    @property
    def frames(self) -> int:
        """Number of frames of a recording."""
        return 1 + (self.samples + 2 * (self.size // 2) - self.size) // self.step  # an odd window is centered less one

    @staticmethod
    def parse(card: Mapping[str, Any]) -> "LogMel":
        """Return the front end that `StudentCard.preprocessing` describes. Raises UserError if it is not of audio."""
        values = dict(card)
        if values.pop("kind", None) != "audio":
            raise UserError(f"this model does not take recordings but {card.get('kind')}")
        return LogMel(**values)

    def card(self) -> dict[str, Any]:
        """Return what `parse` reads."""
        return {
            "kind": "audio",
            "sample_rate": self.sample_rate,
            "seconds": self.seconds,
            "window": self.window,
            "hop": self.hop,
            "bands": self.bands,
        }

    def __str__(self) -> str:
        return f"{self.seconds:g} s at {self.sample_rate:,} Hz, {self.window:g} s every {self.hop:g} s"

    def power(self, waves: Tensor) -> Tensor:
        """Return |STFT|², `[B, size // 2 + 1, frames]`."""
        spectrum = torch.stft(
            waves, self.size, self.step, window=self.hann, center=True, pad_mode="constant", return_complex=True
        )
        return spectrum.real.square() + spectrum.imag.square()

    def forward(self, waves: Tensor) -> Tensor:
        """Return spectrograms of any number of recordings, of any length."""
        return ((self.filters @ self.power(waves) + FLOOR).log()[:, None] - CENTER) / SPREAD


class MatrixLogMel(nn.Module):
    """The same as a `LogMel`, with the Fourier transform as a convolution, for exported files.

    Every runtime has convolutions; onnxruntime runs this one faster than its own STFT, and exactly for windows whose
    length is no power of two.
    """

    kernels: Tensor
    filters: Tensor

    def __init__(self, logmel: LogMel) -> None:
        super().__init__()
        self.step, self.margin = logmel.step, logmel.size // 2
        time = torch.arange(logmel.size, dtype=torch.float64)
        angles = 2 * math.pi / logmel.size * torch.outer(torch.arange(logmel.size // 2 + 1), time)
        waves = logmel.hann.double() * torch.cat([angles.cos(), angles.sin()])
        self.register_buffer("kernels", waves[:, None].float(), persistent=False)
        self.register_buffer("filters", logmel.filters, persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Return what the `LogMel` returns."""
        parts = F.conv1d(F.pad(waves[:, None], (self.margin, self.margin)), self.kernels, stride=self.step)
        real, imaginary = parts.chunk(2, 1)
        power = real.square() + imaginary.square()
        return ((self.filters @ power + FLOOR).log()[:, None] - CENTER) / SPREAD


def mel_filters(sample_rate: int, size: int, bands: int) -> Tensor:
    """Return the weights of each frequency of a Fourier transform in each band: `[bands, size // 2 + 1]`, float64."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.arange(size // 2 + 1, dtype=torch.float64) * sample_rate / size
    widths = corners.diff()[:, None]
    slopes = corners[:, None] - frequencies
    rising, falling = -slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0)
