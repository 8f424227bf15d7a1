"""The setting of the rows: device, networks, sizes; random images in place of CIFAR-10."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from torch import Tensor

from kd_lightning.config import CONF_DIR
from kd_lightning.data.images.cifar import CIFAR10DataModule
from kd_lightning.models import create_model
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.types import batch_of
from kd_lightning.utils import hardware

CLASSES = 10


class RandomImages(CIFAR10DataModule):
    """CIFAR-10's shapes without its files: `total` random images to train on, none for validation, 512 to test."""

    name = "random"

    def __init__(self, total: int, **values: Any) -> None:
        self.total = total
        super().__init__(val_size=0, **values)

    def prepare_data(self) -> None:
        """There is nothing to download."""

    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `ResidentDataModule.read`."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (self.total + 512, 32, 32, 3), generator=generator).to(torch.uint8)
        labels = torch.arange(self.total + 512) % CLASSES
        return images[: self.total], labels[: self.total], images[self.total :], labels[self.total :]


def compose(*overrides: str) -> DictConfig:
    """The configuration that `kd_lightning.train` would have with these words."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


@dataclass(frozen=True)
class Setting:
    """`images` an epoch, in batches of `batch`; each side of a ratio is run `repeats` times."""

    accelerator: str
    student: str
    teacher: str
    images: int
    batch: int
    repeats: int
    folder: Path
    """Folder of run directories, which nobody reads."""
    quick: bool = False
    data_root: str | None = None

    @property
    def many(self) -> int:
        """Repeats where some per cent are to be told apart, which on a CPU shared with others takes more of them."""
        return self.repeats if self.quick or self.accelerator == "gpu" else 3 * self.repeats

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.accelerator == "gpu" else "cpu")

    @property
    def precision(self) -> str:
        """Return the precision that `trainer.precision=auto` means on this machine."""
        return hardware.resolve_precision("auto", self.accelerator)

    def words(self, images: int) -> list[str]:
        """One epoch of distillation on so many images, as a user would type it."""
        return [
            "data._target_=benchmarks.setting.RandomImages", f"+data.total={images}", "~data.val_size",
            f"data.batch_size={self.batch}", f"model.student={self.student}", f"model.teacher={self.teacher}",
            f"trainer.accelerator={self.accelerator}", "trainer.max_epochs=1", "trainer.enable_progress_bar=false",
            "compile=false",
        ]  # fmt: skip

    def config(self, *overrides: str) -> DictConfig:
        """The configuration of one epoch of distillation, with `overrides`."""
        return compose(*self.words(self.images), *overrides)

    def live_teacher(self) -> LiveTeacher:
        """Return a teacher as a run has it, folded and in its precision; its weights are random."""
        torch.manual_seed(0)
        model = create_model(self.teacher, CLASSES, image_size=32).to(memory_format=torch.channels_last)
        teacher = LiveTeacher(model)
        teacher.optimize_for_inference(batch_of(torch.randn(4, 3, 32, 32), 4), self.precision)
        return teacher

    def cached_teacher(self, data: Any, folder: Path | None = None) -> CachedTeacher:
        """The same behind a table, in memory or in a folder."""
        dtype = torch.float32 if self.precision == "32-true" else torch.float16
        live = self.live_teacher()
        return CachedTeacher(live, folder, data, dtype)
