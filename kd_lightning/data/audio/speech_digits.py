"""Free Spoken Digit Dataset (Jackson et al. 2018): the digits 0 to 9, said 50 times by each of six speakers."""

import io
import re
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from kd_lightning.data.audio.module import AudioDataModule
from kd_lightning.data.class_folders import Found
from kd_lightning.data.module import Split
from kd_lightning.utils.checks import UserError, choice
from kd_lightning.utils.console import say

URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES, TEST_TAKES = 50, 5
COUNT = 10 * len(SPEAKERS) * TAKES
FOLDER = "recordings"
SILENCE = 10.0  # seconds after which a connection has failed
_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")


class SpeechDigitsDataModule(AudioDataModule):
    """Spoken digits, 8 kHz, from files `<digit>_<speaker>_<take>.wav`.

    Args:
        root: Folder that holds, or will hold, `recordings/*.wav`.
        split: `published`: takes 0 to 4 of every speaker and digit are the test. `speaker`: one speaker is the test and
            another one the validation, speakers `split_seed` and `split_seed + 1` (modulo 6) of the alphabet.
        common: Arguments of `AudioDataModule`.
    """

    name = "speech_digits"

    def __init__(
        self, root: str | Path = "data/fsdd", *, split: str = "published", sample_rate: int = 8000, **common: Any
    ) -> None:
        super().__init__(root, sample_rate=sample_rate, **common)
        self.protocol = choice("data.split", split, ("published", "speaker"))

    def prepare_data(self) -> None:
        """Download the recordings (16 MB) unless they are there. Raises UserError if that fails."""
        if not self.splits and not self._names():
            try:
                self._download()
            except (OSError, tarfile.TarError) as e:  # URLError is an OSError
                raise UserError(self._how_to_get(f"could not be downloaded ({e})")) from e
        super().prepare_data()

    def find(self) -> tuple[list[str], dict[Split, Found]]:
        names = self._names()
        if len(names) != COUNT:
            raise UserError(self._how_to_get(f"has {len(names):,} of {COUNT:,} recordings there"))
        splits: dict[Split, Found] = {split: Found([], []) for split in self._splits()}
        for path, digit, speaker, take in names:
            split = self._split_of(speaker, take)
            splits[split].paths.append(path)
            splits[split].labels.append(digit)
        return [str(digit) for digit in range(10)], splits

    def _splits(self) -> tuple[Split, ...]:
        if self.protocol == "published":
            return "train", "test"
        test, val = self._unseen
        say(f"data.split=speaker: {test} is the test, {val} the validation (data.split_seed={self.split_seed})")
        return "train", "val", "test"

    @property
    def _unseen(self) -> tuple[str, str]:
        """Speakers of test and validation."""
        first = self.split_seed % len(SPEAKERS)
        return SPEAKERS[first], SPEAKERS[(first + 1) % len(SPEAKERS)]

    def _split_of(self, speaker: str, take: int) -> Split:
        if self.protocol == "published":
            return "test" if take < TEST_TAKES else "train"
        test, val = self._unseen
        return "test" if speaker == test else "val" if speaker == val else "train"

    def _names(self) -> list[tuple[Path, int, str, int]]:
        """Return file, digit, speaker and take of the recordings that are there, in the order of their names."""
        found = []
        for path in sorted((self.root / FOLDER).glob("*.wav")):
            match = _NAME.fullmatch(path.name)
            if match and match[2] in SPEAKERS:
                found.append((path, int(match[1]), match[2], int(match[3])))
        return found

    def _download(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{self.name}.lock"):
            if self._names():
                return
            with urllib.request.urlopen(URL, timeout=SILENCE) as answer:
                files = dict(recordings(answer.read()))
            if len(files) != COUNT:
                raise UserError(self._how_to_get(f"is not as published: {URL} has {len(files):,} recordings"))
            with tempfile.TemporaryDirectory(dir=self.root) as folder:
                whole = Path(folder) / FOLDER
                whole.mkdir()
                for name, content in files.items():
                    (whole / name).write_bytes(content)
                whole.replace(self.root / FOLDER)  # whole or not at all

    def _how_to_get(self, what: str) -> str:
        return (
            f"the Free Spoken Digit Dataset {what}; put its folder recordings, with {COUNT:,} files such as "
            f"0_george_0.wav, into {self.root.absolute()}, or set data.root to the folder that has it ({URL})"
        )


def recordings(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the recordings in a compressed tar file; nothing else of it is looked at."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            name = Path(member.name).name
            match = _NAME.fullmatch(name)
            if member.isfile() and match and match[2] in SPEAKERS:
                file = tar.extractfile(member)
                assert file is not None
                yield name, file.read()
