"""Predictions for recordings: the classes that a run's models hear in audio files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_lightning.data.audio.logmel import LogMel
from kd_lightning.data.audio.read import FULL, Recording, read
from kd_lightning.data.find_files import printable
from kd_lightning.evaluation.answers import Answers, Top, path_label
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.plots.spectrogram import spectrogram_pixels
from kd_lightning.utils.checks import UserError

BATCH = 64


class RecordingPrediction(NamedTuple):
    """One recording and what each model predicts."""

    path: Path
    recording: Recording
    pixels: Tensor
    """The spectrogram that the models see, uint8 `[H, W, 3]`."""
    top: Top

    @property
    def told(self) -> dict[str, Any]:
        """Plain values for JSON."""
        facts = {"cut": self.recording.cut, "silent": not self.recording.wave.any()}
        return {"recording": printable(self.path)} | {name: True for name, holds in facts.items() if holds}

    @property
    def label(self) -> str:
        return path_label(self.path)


class RecordingPredictor:
    """The deployed student of a run of recordings, and its teacher on demand; see `Predictor`."""

    def __init__(self, opened: OpenedRun, teacher: bool = False, raw: bool = False):
        self.logmel = LogMel.parse(opened.card.preprocessing)
        self._answers = Answers(opened, teacher, raw)
        self.temperatures = self._answers.temperatures

    def read(self, path: Path) -> Recording:
        """Return the recording of a file as the models hear it. Raises UserError."""
        return read(path, self.logmel.sample_rate, self.logmel.samples)

    def __call__(
        self, paths: Sequence[Path], recordings: Sequence[Recording], top: int
    ) -> Iterator[RecordingPrediction]:
        """Yield the `top` classes of each recording of one batch."""
        waves = torch.stack([torch.from_numpy(one.wave) for one in recordings]).float() / FULL
        x = self.logmel(waves)
        best = self._answers(x, paths, top)
        for path, recording, picture, found in zip(paths, recordings, spectrogram_pixels(x), best, strict=True):
            yield RecordingPrediction(path, recording, picture, found)

    def notes(self, done: Sequence[RecordingPrediction]) -> Iterator[str]:
        """Yield lines on what was done to the recordings."""
        front, heard = self.logmel, [one.recording for one in done]
        if rates := sorted({one.rate for one in heard} - {front.sample_rate}):
            yield f"Resampled from {' and '.join(f'{rate:,}' for rate in rates)} to {front.sample_rate:,} Hz."
        if cut := sum(one.cut for one in heard):
            yield f"{cut} of {len(done)} are longer than {front.seconds:g} s; their middle was heard."
        if clipped := sum(one.clipped for one in heard):
            yield f"{clipped} of {len(done)} go beyond full scale and were clipped."
        if silent := sum(not one.wave.any() for one in heard):
            yield f"Silent: {silent} of {len(done)}."


def predict(
    predictor: RecordingPredictor, paths: Sequence[Path], top: int
) -> Iterator[RecordingPrediction | UserError]:
    """Yield a prediction for each recording, or why there is none; within a batch, the latter come first."""
    for start in range(0, len(paths), BATCH):
        found: list[tuple[Path, Recording]] = []
        for path in paths[start : start + BATCH]:
            try:
                found.append((path, predictor.read(path)))
            except UserError as e:
                yield e
        if found:
            yield from predictor([path for path, _ in found], [recording for _, recording in found], top)
