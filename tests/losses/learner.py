"""A student that learns from a teacher by a preset of `conf/loss`, without Lightning: a batch, an optimizer, a loop."""

from functools import lru_cache
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from sklearn.datasets import load_digits
from torch import Tensor, nn

from kd_lightning.config import CONF_DIR, build
from kd_lightning.losses import Distillation, Fusion, Method, Networks
from kd_lightning.models import create_model
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.models.probe import Probe
from kd_lightning.types import Batch, Outputs, StudentCard

PRESETS = sorted(p.stem for p in (CONF_DIR / "loss").glob("*.yaml"))
NO_TEACHER = {"ce", "teacher_free", "dml"}
SMALL = {
    "crd": ("loss.negatives=64",),
    "crd_kd": ("loss.crd.negatives=64",),
}
INPUTS = {"num_classes": 10, "image_size": 8}


@lru_cache(1)
def digits() -> Batch:
    """The first 64 of scikit-learn's digits, which are in turn of each class; grey in three channels."""
    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x[:64], dtype=torch.float32).view(64, 1, 8, 8).expand(-1, 3, -1, -1)
    return Batch((images / 16 - 0.3) / 0.38, torch.tensor(y[:64]), torch.arange(64))


def few(n: int) -> Batch:
    """The first n of them."""
    batch = digits()
    return batch._replace(x=batch.x[:n], y=batch.y[:n], index=batch.index[:n])


def preset_node(preset: str, *overrides: str) -> DictConfig:
    """The group `loss` of a preset."""
    cfg = OmegaConf.create({"loss": OmegaConf.load(CONF_DIR / "loss" / f"{preset}.yaml")})
    for override in overrides:
        key, _, value = override.partition("=")
        OmegaConf.update(cfg, key, yaml.safe_load(value), merge=False)
    return cfg.loss


def preset_loss(preset: str, *overrides: str) -> Distillation:
    """The loss of a preset, as a run builds it. `fusion` is not the method's."""
    node = preset_node(preset, *overrides)
    method: Method = build(OmegaConf.masked_copy(node, [str(key) for key in node if key != "fusion"]), "loss")
    return Distillation(method, Fusion(node.get("fusion", "probabilities")))


class Learner:
    """Everything of a run that a loss touches."""

    def __init__(self, preset: str, *overrides: str, teacher: str = "resnet14", student: str = "resnet8"):
        self.loss = preset_loss(preset, *SMALL.get(preset, ()), *overrides)
        torch.manual_seed(0)
        model = create_model(student, **INPUTS)
        torch.manual_seed(1)
        self.teacher_model = create_model(teacher, **INPUTS).eval().requires_grad_(False)
        self.card = StudentCard(student, {}, [str(i) for i in range(10)], INPUTS, {})
        torch.manual_seed(2)  # whatever the teacher's initial weights drew
        x = torch.zeros(2, 3, 8, 8)
        probe = Probe(self.teacher_model, x) if self.loss.needs_teacher else None
        self.loss.prepare(Networks(Probe(model, x), probe, 64, lambda _: create_model(student, **INPUTS), self.card))
        self.student = self.loss.wrap_student(model)
        self.extract = FeatureExtractor(self.student, self.loss.student_layers)
        self.ask = FeatureExtractor(self.teacher_model, self.loss.teacher_layers)
        self.all = nn.ModuleDict({"student": self.student, "loss": self.loss})
        self.optimizer = torch.optim.Adam(self.all.parameters(), lr=2e-3)
        self.loss.method.set_epoch(1000)  # all schedules at their end

    def outputs(self, batch: Batch) -> tuple[Outputs, Outputs | None]:
        return self.extract(batch.x), self._answer(batch) if self.loss.needs_teacher else None

    @torch.no_grad()
    def _answer(self, batch: Batch) -> Outputs:
        return self.ask(batch.x)

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

    def state(self) -> dict[str, Any]:
        """All tensors and numbers that a checkpoint would hold, by name."""
        return flat(self.all.state_dict())


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    """A state dict in which the extra state of a module may be a dictionary, as one level of names."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
