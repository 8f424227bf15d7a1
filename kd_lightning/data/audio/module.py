"""Base class of all data sets of recordings."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.audio.augment import AudioAugment
from kd_lightning.data.audio.logmel import LogMel
from kd_lightning.data.audio.read_all import Clips, read_all
from kd_lightning.data.audio.resident import ResidentRecordings
from kd_lightning.data.class_folders import SPLITS, Found, folder_path
from kd_lightning.data.few_labels import FewLabels
from kd_lightning.data.hold_out import check_classes, hold_out, tell_two_classes
from kd_lightning.data.module import Split
from kd_lightning.data.translation import Translation
from kd_lightning.plots.spectrogram import spectrogram_pixels
from kd_lightning.types import Source
from kd_lightning.utils.checks import UserError, number
from kd_lightning.utils.console import say


class AudioDataModule(FewLabels):
    """Recordings of one length: `Batch.x` is a log-mel spectrogram `[B, 1, bands, frames]`, made on the device.

    Args:
        root: Folder of the files.
        sample_rate: Samples per second; files with another rate are resampled.
        seconds: Length of a recording; of a longer one the middle is kept, a shorter one has zeros around it.
        window: Seconds of a frame; see `LogMel`.
        hop: Seconds from frame to frame.
        bands: Number of mel bands.
        augment: Keys of `AudioAugment`.
        val_size: Fraction of the training recordings that is held out, stratified, if there are none for validation; 0
            for none.
        test_size: Likewise for the test.
        common: Arguments of `FewLabels` and `DataModule`.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        sample_rate: int = 16_000,
        seconds: float = 1.0,
        window: float = 0.032,
        hop: float = 0.03,
        bands: int = 32,
        augment: Mapping[str, Any] | AudioAugment = AudioAugment(),  # noqa: B008 - frozen
        val_size: float = 0.1,
        test_size: float = 0.1,
        batch_size: int = 64,
        **common: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **common)
        self.root = folder_path("data.root", root)
        self.logmel = LogMel(sample_rate, seconds, window, hop, bands)
        self.augment = AudioAugment.parse(augment)
        self.num_views = self.augment.views
        self.val_size = number("data.val_size", val_size, ge=0, le=0.9)
        self.test_size = number("data.test_size", test_size, gt=0, le=0.9)

    @abstractmethod
    def find(self) -> tuple[list[str], dict[Split, Found]]:
        """Return the classes and the files of the splits that are there, `train` at least. Raises UserError."""

    @cached_property
    def _found(self) -> tuple[list[str], dict[Split, Found]]:
        return self.find()

    @cached_property
    def _clips(self) -> dict[Split, Clips]:
        """All recordings, decoded."""
        rate, samples = self.logmel.sample_rate, self.logmel.samples
        return {split: read_all(str(split), found, rate, samples) for split, found in self._found[1].items()}

    @property
    def classes(self) -> list[str]:
        """Names of the classes; looks at the folders."""
        return self._found[0]

    def prepare_data(self) -> None:
        """Look for the files, so that none is missing in a training. Raises UserError."""
        _ = self.own_classes

    def setup(self, stage: str | None = None) -> None:
        """Read all files and fill `splits` once, whatever the stage; lines tell what is held out. Raises UserError."""
        if self.splits:
            return
        clips = self._split()
        labels = self.few_labels(clips["train"].labels)
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(json.dumps([clips[split].digests, clips[split].labels.tolist()]).encode())
        self._content = digest.hexdigest()
        self.splits = {
            "train": ResidentRecordings(clips["train"].waves, labels, self.logmel, self.augment),
            "val": ResidentRecordings(clips["val"].waves, clips["val"].labels, self.logmel, AudioAugment()),
            "test": ResidentRecordings(clips["test"].waves, clips["test"].labels, self.logmel, AudioAugment()),
        }
        del self._clips

    def _split(self) -> dict[Split, Clips]:
        """Return the recordings of the three splits, with no copy of one that is held out left in train."""
        parts = dict(self._clips)
        wanted: dict[Split, float] = {"test": self.test_size, "val": self.val_size}
        missing = {split: size for split, size in wanted.items() if split not in parts and size}
        where, classes = self.root, self.own_classes
        check_classes(parts["train"].labels, classes, list(missing), "recordings", where)
        tell_two_classes(parts["train"].digests, parts["train"].labels, "recordings", where)
        for split, size in missing.items():
            train = parts["train"]
            found = hold_out(split, train.digests, train.labels, classes, size, self.split_seed, "recordings", where)
            parts["train"], parts[split] = map(train.select, found)
        parts.setdefault("val", parts["train"].select(torch.empty(0, dtype=torch.long)))
        for split in ("val", "test"):
            if split not in missing and (repeated := parts[split].copies_of(parts["train"])):
                say(f"{split}: {repeated:,} of {len(parts[split]):,} recordings are in train too", detail=True)
        return parts

    def epoch_views(self, epoch: int) -> Tensor:
        return self.augment.view(self.view_seed, epoch, torch.arange(self.sizes["train"]))

    def plain_train(self) -> Source:
        train = self.splits["train"]
        assert isinstance(train, ResidentRecordings)
        return train.plain()

    def example(self, count: int) -> Tensor:
        """Return spectrograms of noise."""
        generator = torch.Generator().manual_seed(0)
        waves = 0.1 * torch.randn(count, self.logmel.samples, generator=generator)
        return self.logmel.to("cpu")(waves.clamp_(-1, 1))

    def raw_samples(self, split: Split, order: Tensor) -> Tensor:
        """Return waveforms, floats `[n, samples]`."""
        source = self.splits[split]
        assert isinstance(source, ResidentRecordings)
        source.to(torch.device("cpu"))
        return source.waves(order, torch.zeros_like(order))

    def pixels(self, x: Tensor) -> Tensor:
        return spectrogram_pixels(x)

    def model_kwargs(self) -> dict[str, Any]:
        """Return what networks depend on; `spectrogram` is there so that no student is given another kind of it."""
        front = self.logmel
        return super().model_kwargs() | {"bands": front.bands, "frames": front.frames, "spectrogram": str(front)}

    def preprocessing(self) -> dict[str, Any]:
        return self.logmel.card()

    def teacher_inputs(
        self, normalize: Any, input_size: Any, key: str, network: str = "", card: Mapping[str, Any] | None = None
    ) -> tuple[Translation | None, dict[str, Any]]:
        """See `DataModule`; a teacher whose spectrograms are of another kind is refused, whatever their length."""
        own, known = self.logmel.card(), dict(card or {})
        if known.get("kind") == own["kind"]:
            other = {name: value for name, value in known.items() if name != "seconds" and value != own[name]}
            if other:
                told = " ".join(f"data.{name}={value}" for name, value in other.items())
                raise UserError(f"model.teacher_weights{key}: this teacher hears other spectrograms; use {told}")
        return super().teacher_inputs(normalize, input_size, key)

    def samples_identity(self) -> dict[str, Any]:
        """Return what decides the recordings and their order; reads the files."""
        self.setup()
        return {"name": self.name, "split_seed": self.split_seed, "content": self._content}

    def identity(self) -> dict[str, Any]:
        """Return the identity of the data set; reads the files."""
        return self.samples_identity() | {"inputs": self.logmel.card(), "augment": asdict(self.augment)}
