"""Audio files as waveforms of one sample rate and one length."""

import importlib.util
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.signal import resample_poly

from kd_lightning.data.find_files import FileKind, printable
from kd_lightning.utils.checks import UserError

RECORDINGS = FileKind("recordings", (".wav", ".flac"))
FULL = 32_768
"""Full scale of 16 bits."""
RATES = range(1_000, 768_001)
"""Samples per second that a file may have; a damaged header says others, and resampling from them takes all memory."""
Wave = np.ndarray[Any, np.dtype[np.int16]]


class EmptyRecording(UserError):
    """A file that holds no sample."""


class Recording(NamedTuple):
    """The waveform of a file, and what was done to it."""

    wave: Wave
    """int16 `[samples]`."""
    rate: int
    """Samples per second of the file."""
    channels: int
    """Of the file; their mean is taken."""
    cut: bool
    """True if the file is longer."""
    clipped: bool
    """True if the file goes beyond full scale, as one of floats may."""


def check_installed() -> None:
    """Raise UserError if the library that reads audio files is missing."""
    if importlib.util.find_spec("soundfile") is None:
        raise UserError("audio needs soundfile: pip install 'kd_lightning[audio]'")


def read(path: Path, rate: int, samples: int) -> Recording:
    """Return the middle of a file.

    A longer recording is cut at both ends, and only its middle is read; a shorter one has zeros around it.

    Args:
        path: The file.
        rate: Samples per second that are wanted.
        samples: Length that is wanted.

    Raises:
        UserError: If it cannot be read; `EmptyRecording` if it holds nothing.
    """
    check_installed()
    import soundfile

    try:
        with soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path) as file:  # a name may be no UTF-8
            if file.samplerate not in RATES:
                raise ValueError(f"its header says {file.samplerate:,} samples per second")
            length = math.ceil(samples * file.samplerate / rate)
            file.seek(max(0, (file.frames - length) // 2))
            found = file.read(length, dtype="float32", always_2d=True)
            cut = file.frames > length
            given, channels = int(file.samplerate), int(file.channels)
    except (OSError, RuntimeError, ValueError) as e:  # LibsndfileError is a RuntimeError
        why = _reason(e) if path.is_file() else "it is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"cannot read {printable(path)}: {why}") from e
    if not len(found):
        raise EmptyRecording(f"{printable(path)} is empty: a recording of 0 seconds")
    if not np.isfinite(found).all():
        raise UserError(f"cannot read {printable(path)}: it holds NaN or infinity")
    wave = found.mean(1)
    return Recording(fitted(wave, given, rate, samples), given, channels, cut, bool(np.abs(wave).max() > 1))


def fitted(wave: Any, given: int, rate: int, samples: int) -> Wave:
    """Return a waveform of floats in [−1, 1] resampled from `given` to `rate`, its middle, as int16 `[samples]`."""
    if given != rate:
        common = math.gcd(given, rate)
        wave = resample_poly(wave, rate // common, given // common)
    start = (len(wave) - samples) // 2
    wave = wave[start : start + samples] if start > 0 else wave[:samples]
    before = (samples - len(wave)) // 2
    out = np.zeros(samples, np.int16)
    out[before : before + len(wave)] = np.clip(np.rint(wave * FULL), -FULL, FULL - 1).astype(np.int16)
    return out


def _reason(e: Exception) -> str:
    """Return the library's reason in one line, without the file's name."""
    lines = str(e).strip().splitlines() or [type(e).__name__]
    return lines[0].rpartition("': ")[2][:120].rstrip(".")
