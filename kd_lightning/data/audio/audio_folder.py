"""Your own recordings: `root/<class>/*`, or `root/train/<class>/*` with `val` and `test` likewise."""

from pathlib import Path
from typing import Any

from kd_lightning.data.audio.module import AudioDataModule
from kd_lightning.data.audio.read import RECORDINGS
from kd_lightning.data.class_folders import SPLITS, Found, check_folder, scan, split_folders
from kd_lightning.data.module import Split


class AudioFolderDataModule(AudioDataModule):
    """Files `.wav` and `.flac`. Splits without a folder of their own are held out.

    Args:
        root: Folder with one folder of recordings per class, or with such a folder `train` and, if they exist, `val`
            and `test`.
        common: Arguments of `AudioDataModule`.
    """

    name = "audio_folder"

    def __init__(self, root: str | Path, **common: Any) -> None:
        super().__init__(root, **common)

    def find(self) -> tuple[list[str], dict[Split, Found]]:
        check_folder("data.root", self.root)
        divided = any((self.root / split).is_dir() for split in SPLITS)
        places = split_folders(self.root, RECORDINGS.noun) if divided else {SPLITS[0]: self.root}
        return scan(places, RECORDINGS)
