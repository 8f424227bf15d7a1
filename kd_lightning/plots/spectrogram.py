"""Pictures of spectrograms."""

import matplotlib
import numpy as np
import torch
from torch import Tensor

QUIET, LOUD = -1.8, 2.0
"""Values of a normalized log-mel spectrogram that are black and white."""
ZOOM = 3
"""Pixels of a band and of a frame."""


def spectrogram_pixels(x: Tensor) -> Tensor:
    """Return spectrograms `[N, 1, bands, frames]` as pixels, uint8 `[N, H, W, 3]`; low bands are at the bottom."""
    share = ((x[:, 0].float().cpu().flip(1) - QUIET) / (LOUD - QUIET)).clamp(0, 1)
    colors = (matplotlib.colormaps["magma"](share.numpy())[..., :3] * 255).round().astype(np.uint8)
    return torch.from_numpy(colors).repeat_interleave(ZOOM, 1).repeat_interleave(ZOOM, 2)
