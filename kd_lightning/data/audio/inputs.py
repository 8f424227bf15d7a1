"""From what a user has of recordings, files or arrays, to waveforms."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.audio.logmel import LogMel
from kd_lightning.data.audio.read import FULL, Wave, fitted, read
from kd_lightning.utils.checks import UserError

LOUDEST = 2.0
"""Resampling goes a little beyond full scale, which is clipped; more of it is another scale, such as that of int16."""


def waveforms(recordings: Any, logmel: LogMel) -> Tensor:
    """Return the waveforms of one recording or several, floats `[N, samples]`, as long as `logmel` wants them.

    Args:
        recordings: A file, an array or tensor `[L]` at the rate of `logmel`, floats in [−1, 1] or int16, or a list of
            these; or an array `[N, L]`.
        logmel: The front end.

    Raises:
        UserError: If one of them is nothing of that kind.
    """
    if not isinstance(recordings, list | tuple):
        array = recordings if isinstance(recordings, Tensor | np.ndarray) else None
        recordings = list(recordings) if array is not None and array.ndim == 2 else [recordings]
    if not recordings:
        raise UserError("no recordings were given")
    waves = np.stack([_wave(one, logmel) for one in recordings])
    return torch.from_numpy(waves).float() / FULL


def _wave(recording: Any, logmel: LogMel) -> Wave:
    if isinstance(recording, str | PathLike):
        return read(Path(recording), logmel.sample_rate, logmel.samples).wave
    wave = recording.cpu().numpy() if isinstance(recording, Tensor) else recording
    if not isinstance(wave, np.ndarray) or wave.ndim != 1 or not len(wave):
        shape = f"of shape {list(wave.shape)}" if isinstance(wave, np.ndarray) else repr(wave)[:60]
        raise UserError(f"a recording is a file, or an array [L] at {logmel.sample_rate:,} Hz; got {shape}")
    if wave.dtype == np.int16:
        wave = wave / FULL
    if not np.issubdtype(wave.dtype, np.floating) or not np.abs(wave).max() <= LOUDEST:  # nor NaN
        raise UserError(f"an array of a recording holds floats in [−1, 1] or int16, got {wave.dtype} with {wave[:1]}")
    return fitted(wave, logmel.sample_rate, logmel.sample_rate, logmel.samples)
