"""The teachers of a run: described by its configuration, opened, and measured before they teach."""

from itertools import islice
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch.utils.data import DataLoader

from kd_lightning.config import check_given
from kd_lightning.data.module import DataModule
from kd_lightning.distiller import Distiller
from kd_lightning.runs.students import weights_file
from kd_lightning.teachers.build import TeacherSpec
from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say

PER_TEACHER = ("kwargs", "weights", "normalize", "input_size", "classes")
"""Keys `model.teacher_*` that take one value for all teachers, or a list with one for each."""


def teacher_specs(model: DictConfig) -> tuple[TeacherSpec, ...]:
    """Return a description of each teacher of the group `model`.

    Raises:
        UserError: If no teacher is named, a list has not one value for each teacher, or weights are not there.
    """
    check_given(model, "model")
    several = isinstance(model.teacher, ListConfig)
    names = list(model.teacher) if isinstance(model.teacher, ListConfig) else [model.teacher]
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"model.teacher must be the name of a model or a list of them, got {model.teacher!r}; "
            "only loss=ce needs none"
        )
    values = {key: _each(f"model.teacher_{key}", model[f"teacher_{key}"], len(names), several) for key in PER_TEACHER}
    specs = []
    for k, name in enumerate(names):
        suffix = f"[{k}]" if several else ""
        own = {key: value[k] for key, value in values.items()}
        weights = str(own["weights"])
        if weights not in ("auto", "imagenet"):
            weights = str(weights_file(weights, f"model.teacher_weights{suffix}"))
        classes = None if own["classes"] is None else tuple(str(c) for c in own["classes"])
        specs.append(
            TeacherSpec(name, own["kwargs"] or {}, weights, own["normalize"], own["input_size"], classes, suffix=suffix)
        )
    return tuple(specs)


def _each(key: str, value: Any, count: int, several: bool) -> list[Any]:
    """Return the value of each teacher: one of a list, or the same for all."""
    plain: Any = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    is_list = several and isinstance(plain, list)
    if key.endswith("classes"):  # the value of one teacher is a list itself
        is_list = is_list and bool(plain) and isinstance(plain[0], list)
    if not is_list:
        return [plain] * count
    if len(plain) != count:
        raise UserError(f"{key} has {len(plain)} values for {count} teachers; give one for each, or one for all")
    return list(plain)


def check_teacher(trainer: pl.Trainer, distiller: Distiller, data: DataModule) -> None:
    """Measure the teacher before it teaches. Raises UserError if it knows no more than chance."""
    split = "validation" if data.sizes["val"] else "training"
    if data.sizes["val"]:
        trainer.validate(distiller, data, verbose=False)  # through `data`, whose loaders then know their rank
    else:
        few: Any = list(islice(data.train_dataloader(), 8))
        trainer.validate(distiller, DataLoader(few, batch_size=None), verbose=False)
    accuracy = float(trainer.callback_metrics["val/teacher_accuracy"])
    say(f"teacher: {accuracy:.2%} right on {split} samples")
    if isinstance(distiller.teacher, Ensemble):
        say(_diversity(distiller.teacher, float(trainer.callback_metrics["val/teacher_ece"])))
    chance, count = 1 / data.num_classes, data.sizes["val"] or 8 * data.batch_size
    if accuracy < chance + min(3 * (chance * (1 - chance) / count) ** 0.5, (1 - chance) / 2):
        raise UserError(
            f"model.teacher_weights: the teacher is right on {accuracy:.1%} of the {split} samples, and chance is "
            f"{chance:.1%}; check its weights, model.teacher_normalize and the order of its classes"
        )


def _diversity(teachers: Ensemble, ece: float) -> str:
    """Return how the fused teachers are calibrated, and how often each two of them name the same class."""
    same = teachers.agreement()
    pairs = [f"{i} and {j} {same[i, j]:.2%}" for i in range(len(same)) for j in range(i)]
    return f"         fused: ECE {ece:.3f}; same answer of teachers {', '.join(pairs)}"
