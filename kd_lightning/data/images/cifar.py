"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 × 32 pixels."""

import socket
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from kd_lightning.data.class_folders import folder_path
from kd_lightning.data.images.augment import Augment
from kd_lightning.data.images.class_names import CIFAR10_CLASSES, CIFAR100_CLASSES
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.data.images.resident_module import ResidentDataModule
from kd_lightning.utils.checks import UserError

CONNECT_SECONDS, STALL_SECONDS = 5.0, 30.0


class CIFAR10DataModule(ResidentDataModule):
    """CIFAR-10 on the training device.

    Args:
        root: Folder that holds, or will hold, `cifar-10-batches-py`.
        normalize: Normalization; None for the statistics of the data set.
        common: Arguments of `ResidentDataModule`.
    """

    name = "cifar10"
    image_size = 32
    total = 50_000
    dataset: type[datasets.CIFAR10] = datasets.CIFAR10
    default_normalize = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))

    def __init__(
        self,
        root: str = "data",
        *,
        val_size: int = 5000,
        normalize: Mapping[str, Any] | Normalize | None = None,
        augment: Mapping[str, Any] | Augment = Augment(pad=4, flip=True),  # noqa: B008 - frozen
        batch_size: int = 128,
        **common: Any,
    ) -> None:
        self.root = folder_path("data.root", root)
        normalize = self.default_normalize if normalize is None else normalize
        super().__init__(val_size=val_size, normalize=normalize, augment=augment, batch_size=batch_size, **common)

    @property
    def classes(self) -> list[str]:
        return list(CIFAR10_CLASSES)

    def prepare_data(self) -> None:
        """Download and unpack the archive (some 170 MB) unless it is there. Raises UserError if that fails."""
        super().prepare_data()
        if self.splits or self._present():
            return
        try:
            self._probe()
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f".{self.name}.lock"), _timeout(STALL_SECONDS), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # tarfile's notice about filters
                self.dataset(str(self.root), download=True)
        except (OSError, RuntimeError) as error:  # URLError is an OSError
            damaged = self._damaged()
            also = f"is damaged ({', '.join(damaged)}: wrong MD5) and " if damaged else ""
            raise UserError(self._how_to_get(f"{also}could not be downloaded ({error})")) from error

    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        try:  # torchvision compares the MD5 sums of all files
            parts = [self.dataset(str(self.root), train=train) for train in (True, False)]
        except (OSError, RuntimeError) as error:
            raise UserError(self._how_to_get("is missing or damaged")) from error
        arrays = [a for part in parts for a in (np.ascontiguousarray(part.data), np.asarray(part.targets, np.int64))]
        images, labels, test_images, test_labels = map(torch.from_numpy, arrays)
        return images, labels, test_images, test_labels

    def _present(self) -> bool:
        return all(check_integrity(path, md5) for path, md5 in self._files())

    def _damaged(self) -> list[str]:
        """Return the files that are there with another content than the published one."""
        return [path.name for path, md5 in self._files() if path.is_file() and not check_integrity(path, md5)]

    def _files(self) -> list[tuple[Path, str]]:
        folder = self.root / self.dataset.base_folder
        return [(folder / name, md5) for name, md5 in (*self.dataset.train_list, *self.dataset.test_list)]

    def _probe(self) -> None:
        """Ask the server for a sign of life, unless the archive was put there by hand. Raises OSError."""
        if not check_integrity(self.root / self.dataset.filename, self.dataset.tgz_md5):
            request = urllib.request.Request(self.dataset.url, method="HEAD")
            urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()

    def _how_to_get(self, what: str) -> str:
        root = self.root.absolute()
        return (
            f"{self.dataset.__name__} {what}; looked in data.root={root} for the folder {self.dataset.base_folder}. "
            f"Put {self.dataset.url} as {root / self.dataset.filename} (it is unpacked at the next start), set "
            "data.root to the folder that has it, or try experiment=quickstart, which needs no download"
        )


class CIFAR100DataModule(CIFAR10DataModule):
    """CIFAR-100 (its 100 fine labels) on the training device; otherwise as CIFAR-10."""

    name = "cifar100"
    dataset = datasets.CIFAR100
    default_normalize = Normalize((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))

    @property
    def classes(self) -> list[str]:
        return list(CIFAR100_CLASSES)


class _timeout:
    """Time after which a silent connection fails, within a `with` block; torchvision's download has none of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(self.seconds)

    def __exit__(self, *_: object) -> None:
        socket.setdefaulttimeout(self.before)
