"""From `model.teacher*` to a teacher whose weights are never random by accident."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.checks import UserError, choice
from kd_lightning.config import check_given
from kd_lightning.data import Normalize
from kd_lightning.models import create_model
from kd_lightning.teachers.live import LiveTeacher, Renormalize
from kd_lightning.teachers.stage import check_stage, trained_teacher
from kd_lightning.teachers.weights import load_weights

NORMALIZATIONS = {
    "imagenet": Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalize((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def build_teacher(
    cfg: DictConfig, data: Any, prepare: Callable[[nn.Module], tuple[str, ...]], train: Callable[..., Any]
) -> Callable[[], LiveTeacher]:
    """Checks all of `model.teacher*` now; the function it returns gives the teacher, trained first if need be.

    `train(config, folder, resume)` is the ordinary training, and `prepare(model)` tells the layers that the loss wants.
    Raises UserError if the teacher or its weights do not exist or do not fit the data's classes.
    """
    check_given(cfg.model, "model")
    if not isinstance(cfg.model.teacher, str):
        raise UserError(f"model.teacher must be the name of a model, got {cfg.model.teacher!r}; only loss=ce needs none")
    kwargs = cfg.model.teacher_kwargs
    model = create_model(
        cfg.model.teacher, data.num_classes, image_size=data.image_size, key="model.teacher", **kwargs
    ).to(memory_format=torch.channels_last)
    teacher = LiveTeacher(model, prepare(model), _renormalize(cfg.model.teacher_normalize, data))
    weights = cfg.model.teacher_weights
    if weights not in ("auto", "imagenet"):
        load_weights(model, weights)
        return lambda: teacher
    check_stage(cfg, data)

    def after_training() -> LiveTeacher:
        load_weights(model, trained_teacher(cfg, data, train))
        return teacher

    return after_training


def _renormalize(wanted: Any, data: Any) -> Renormalize | None:
    """From the normalization of the data to the one that the teacher was trained with."""
    if wanted is None:
        return None
    if isinstance(wanted, str):
        choice("model.teacher_normalize", wanted, list(NORMALIZATIONS))
        new = NORMALIZATIONS[wanted]
    elif isinstance(wanted, Mapping | DictConfig):
        values: Any = OmegaConf.to_container(wanted)
        new = Normalize.parse(values, "model.teacher_normalize")
    else:
        raise UserError(
            f"model.teacher_normalize must be null, {', '.join(NORMALIZATIONS)} or {{mean: [...], std: [...]}}, "
            f"got {wanted!r}"
        )
    return None if new == data.normalize else Renormalize(data.normalize, new)
