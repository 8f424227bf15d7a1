"""From `model.teacher*` to a teacher whose weights are never random by accident."""

from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from kd_lightning.config import check_given
from kd_lightning.data import Normalize
from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.teachers.adapter import View
from kd_lightning.teachers.cache.storage import check_storage, with_cache
from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.teachers.live import LiveTeacher, Teacher
from kd_lightning.training.objective import build_fusion
from kd_lightning.training.teacher_stage import check_stage, trained_teacher
from kd_lightning.utils.checks import UserError, choice, did_you_mean, integer

NORMALIZATIONS = {
    "imagenet": Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalize((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
# Keys of `model` that take one value for all teachers, or a list with one for each.
PER_TEACHER = ("teacher_kwargs", "teacher_weights", "teacher_normalize", "teacher_input_size", "teacher_classes")


def build_teacher(
    cfg: DictConfig,
    data: Any,
    trainer: DictConfig,
    prepare: Callable[[nn.Module], tuple[str, ...]],
    train: Callable[..., Any],
) -> Callable[[], Teacher]:
    """Checks all of `model.teacher*` now; the function it returns gives the teacher, trained first if need be.

    `train(config, folder, resume)` is the ordinary training, and `prepare(model)` tells the layers that the loss wants.
    Raises UserError if a teacher or its weights do not exist or do not fit the data's classes.
    """
    check_given(cfg.model, "model")
    check_storage(cfg)
    each = [_one_teacher(one, data, trainer, prepare, train, key) for one, key in single_teachers(cfg)]
    if len(each) == 1:
        return each[0]
    return lambda: Ensemble([get() for get in each], build_fusion(cfg.loss, cfg.model))


def single_teachers(cfg: DictConfig) -> list[tuple[DictConfig, str]]:
    """A configuration with one teacher for each of `model.teacher`, and the suffix of its keys in messages."""
    if isinstance(cfg.model.teacher, str):
        return [(cfg, "")]
    if not isinstance(cfg.model.teacher, ListConfig) or not len(cfg.model.teacher):
        raise UserError(
            f"model.teacher must be the name of a model or a list of them, got {cfg.model.teacher!r}; "
            "only loss=ce needs none"
        )
    count = len(cfg.model.teacher)
    configs = [cfg.copy() for _ in range(count)]
    for key in ("teacher", *PER_TEACHER):
        value = cfg.model[key]
        own = isinstance(value, ListConfig) and (key != "teacher_classes" or isinstance(value[0], ListConfig))
        if own and len(value) != count:
            raise UserError(
                f"model.{key} has {len(value)} values for {count} teachers; give one for each, or one for all"
            )
        for k, config in enumerate(configs):
            config.model[key] = value[k] if own else value
    return [(config, f"[{k}]") for k, config in enumerate(configs)]


def image_sizes(cfg: DictConfig, data: Any) -> list[int]:
    """Pixels of the images that each teacher is given; `cfg` may be that of a run of an older version."""
    return [one.model.get("teacher_input_size") or data.image_size for one, _ in single_teachers(cfg)]


def _one_teacher(
    cfg: DictConfig, data: Any, trainer: DictConfig, prepare: Callable[..., Any], train: Callable[..., Any], suffix: str
) -> Callable[[], Teacher]:
    names = cfg.model.teacher_classes
    size = cfg.model.teacher_input_size
    if size is not None:
        integer(f"model.teacher_input_size{suffix}", size, least=8)
    model = create_model(
        cfg.model.teacher,
        data.num_classes if names is None else len(names),
        image_size=size or data.image_size,
        key=f"model.teacher{suffix}",
        **cfg.model.teacher_kwargs,
    ).to(memory_format=torch.channels_last)
    layers = prepare(model)
    if layers and suffix:
        raise UserError(
            f"model.teacher: a loss of features needs exactly one teacher, got {suffix} and others; use one of logits"
        )
    teacher = LiveTeacher(model, layers, _view(cfg, data, suffix))
    weights = cfg.model.teacher_weights
    trained = weights in ("auto", "imagenet")
    if not trained:
        load_weights(model, weights, f"model.teacher_weights{suffix}")
    elif teacher.view is not None:
        raise UserError(
            f"model.teacher_weights{suffix}={weights} trains a teacher on this data as it is; teacher_normalize, "
            "teacher_input_size and teacher_classes are for one that was trained elsewhere"
        )
    else:
        check_stage(cfg, data)

    def get() -> Teacher:
        if trained:
            load_weights(model, trained_teacher(cfg, data, train))
        if layers:
            return teacher
        teacher.speed_up(size or data.image_size, trainer.precision)
        return with_cache(teacher, cfg, data, trainer)

    return get


def _view(cfg: DictConfig, data: Any, suffix: str) -> View | None:
    """What lies between this data and a teacher trained elsewhere, if anything does."""
    new = _normalization(cfg.model.teacher_normalize, f"model.teacher_normalize{suffix}") or data.normalize
    size, names = cfg.model.teacher_input_size, cfg.model.teacher_classes
    order = None
    if names is not None:
        key = f"model.teacher_classes{suffix}"
        names = [str(name) for name in names]
        lacks = [name for name in data.classes if name not in names]
        if lacks:
            raise UserError(
                f"{key} lacks {lacks[0]!r}{did_you_mean(lacks[0], names)}; it must name every class of the data"
            )
        order = [names.index(name) for name in data.classes]
    if new == data.normalize and size in (None, data.image_size) and order is None:
        return None
    return View(data.normalize, new, size, order)


def _normalization(wanted: Any, key: str) -> Normalize | None:
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return NORMALIZATIONS[choice(key, wanted, list(NORMALIZATIONS))]
    if isinstance(wanted, DictConfig):
        values: Any = OmegaConf.to_container(wanted)
        return Normalize.parse(values, key)
    raise UserError(f"{key} must be null, {', '.join(NORMALIZATIONS)} or {{mean: [...], std: [...]}}, got {wanted!r}")
