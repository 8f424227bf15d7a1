"""All recordings of a split in memory, and lines that tell what was done to them."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.audio.read import EmptyRecording, Recording, read
from kd_lightning.data.class_folders import Found
from kd_lightning.data.find_files import printable
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say


@dataclass(frozen=True)
class Clips:
    """Recordings of one length."""

    waves: Tensor
    """int16 `[N, samples]`."""
    labels: Tensor
    """int64 `[N]`."""
    digests: list[str]
    """Hash of each waveform."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, positions: Tensor) -> "Clips":
        """Return those at `positions` `[n]`."""
        digests = [self.digests[i] for i in positions.tolist()]
        return Clips(self.waves[positions], self.labels[positions], digests)

    def copies_of(self, other: "Clips") -> int:
        """Return how many recordings `other` holds too."""
        known = set(other.digests)
        return sum(digest in known for digest in self.digests)


def read_all(name: str, found: Found, rate: int, samples: int) -> Clips:
    """Read the files of a split; see `read`. Lines tell what was resampled, mixed, cut or left out.

    Raises:
        UserError: If a file is damaged, or all are empty; the message names some.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding lets other threads run
        results = list(pool.map(partial(_read, rate=rate, samples=samples), found.paths))
    damaged = [str(r) for r in results if isinstance(r, UserError) and not isinstance(r, EmptyRecording)]
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise UserError(f"{damaged[0]}{more}; remove or replace what is damaged")
    kept = [(r, path, y) for r, path, y in zip(results, *found, strict=True) if isinstance(r, Recording)]
    empty = [path for r, path in zip(results, found.paths, strict=True) if isinstance(r, EmptyRecording)]
    recordings, paths = [r for r, _, _ in kept], [path for _, path, _ in kept]
    if not kept:
        raise UserError(f"{name}: all {len(empty)} recordings are empty, such as {printable(empty[0])}")
    _tell(name, recordings, paths, empty, rate)
    waves = np.stack([r.wave for r in recordings])
    digests = [hashlib.sha256(wave.tobytes()).hexdigest()[:32] for wave in waves]
    return Clips(torch.from_numpy(waves), torch.tensor([y for _, _, y in kept]), digests)


def _read(path: Path, rate: int, samples: int) -> Recording | UserError:
    try:
        return read(path, rate, samples)
    except UserError as e:
        return e


def _tell(name: str, recordings: Sequence[Recording], paths: Sequence[Path], empty: Sequence[Path], rate: int) -> None:
    total, rates = len(recordings), Counter(r.rate for r in recordings if r.rate != rate)
    silent = [path for r, path in zip(recordings, paths, strict=True) if not r.wave.any()]
    others = " and ".join(f"{given:,}" for given in sorted(rates))
    clipped = [path for r, path in zip(recordings, paths, strict=True) if r.clipped]
    lines = {
        f"are resampled from {others} to {rate:,} Hz (data.sample_rate)": sum(rates.values()),
        "have several channels, of which the mean is taken": sum(r.channels > 1 for r in recordings),
        "are longer than data.seconds and keep their middle": sum(r.cut for r in recordings),
        f"go beyond full scale and are clipped, such as {printable(clipped[0]) if clipped else ''}": len(clipped),
        f"are silent, such as {printable(silent[0]) if silent else ''}": len(silent),
    }
    for what, count in lines.items():
        if count:
            say(f"{name}: {count:,} of {total:,} recordings {what}", detail=True)
    if empty:
        say(f"{name}: left out {len(empty):,} × recording of 0 seconds, such as {printable(empty[0])}", detail=True)
