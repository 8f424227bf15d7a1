"""A student that learns from a teacher by a preset of `conf/loss`, without Lightning: a batch, an optimizer, a loop."""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from kd_lightning.config import CONF_DIR
from kd_lightning.data import DigitsDataModule
from kd_lightning.models import create_model
from kd_lightning.models.hooks import Tap
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.training.objective import build_loss, prepare_loss
from kd_lightning.types import Batch, Outputs
from tests.conftest import compose

PRESETS = sorted(p.stem for p in (CONF_DIR / "loss").glob("*.yaml"))
NO_TEACHER = {"ce", "teacher_free", "dml"}
SMALL = {"crd": ("loss.negatives=64",), "crd_kd": ("loss.crd.negatives=64",)}
DATA = SimpleNamespace(image_size=8, num_classes=10, sizes={"train": 64})


@lru_cache(1)
def digits() -> Batch:
    """64 images, all of the training split."""
    data = DigitsDataModule(train_size=64, batch_size=64)
    data.setup()
    return next(iter(data.train_dataloader()))


@lru_cache(1)
def base() -> DictConfig:
    return compose()


def configuration(preset: str, *overrides: str) -> DictConfig:
    """As `compose(f"loss={preset}", …)`, in a tenth of the time."""
    cfg = base().copy()
    with open_dict(cfg):
        cfg.loss = OmegaConf.load(CONF_DIR / "loss" / f"{preset}.yaml")
    for override in overrides:
        key, _, value = override.partition("=")
        OmegaConf.update(cfg, key, yaml.safe_load(value), merge=False)
    return cfg


class Learner:
    """Everything of a run that a loss touches, made as `kd_lightning.train` makes it."""

    def __init__(self, preset: str, *overrides: str, teacher: str = "resnet14", student: str = "resnet8"):
        cfg = configuration(preset, f"model.student={student}", *SMALL.get(preset, ()), *overrides)
        self.loss: Any = build_loss(cfg.loss, cfg.model)
        torch.manual_seed(0)
        model = create_model(student, 10, image_size=8)
        torch.manual_seed(1)
        self.teacher_model = create_model(teacher, 10, image_size=8)
        wanted = self.teacher_model if self.loss.needs_teacher else None
        layers = prepare_loss(cfg, self.loss, model, wanted, DATA)
        self.teacher = LiveTeacher(self.teacher_model, layers) if self.loss.needs_teacher else None
        self.student = self.loss.deployed(model) if hasattr(self.loss, "deployed") else model
        self.tap = Tap(self.student, self.loss.student_layers)
        self.all = nn.ModuleDict({"student": self.student, "loss": self.loss})
        self.optimizer = torch.optim.Adam(self.all.parameters(), lr=2e-3)
        if hasattr(self.loss, "set_epoch"):
            self.loss.set_epoch(1000)  # all schedules at their end

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs | None]:
        return self.tap(batch.x), self.teacher(batch) if self.teacher else None

    def step(self, batch: Batch | None = None) -> dict[str, float]:
        """One step of the optimizer; returns the terms before it. Gradients stay."""
        batch = batch or digits()
        terms: dict[str, Tensor] = self.loss(*self.outputs(batch), batch)
        self.optimizer.zero_grad()
        terms["loss"].backward()
        self.optimizer.step()
        return {name: value.item() for name, value in terms.items()}

    def own(self) -> dict[str, Tensor]:
        """The method's parameters, copied."""
        return {name: p.detach().clone() for name, p in self.loss.named_parameters()}
