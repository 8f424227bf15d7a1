"""Where the answers of a teacher are kept (`model.teacher_cache`), as what, and whether there is room for them."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.cache.table import LogitTable
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.training.teacher_stage import slug
from kd_lightning.utils.checks import UserError, choice
from kd_lightning.utils.console import say
from kd_lightning.utils.hardware import free_memory

DEFAULT_FOLDER = "outputs/teacher_cache"
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
SHARE = 0.9  # of the free disk or memory that a full table may take


def check_storage(cfg: DictConfig) -> None:
    """Raises UserError if `model.teacher_cache_dtype` is none."""
    choice("model.teacher_cache_dtype", cfg.model.teacher_cache_dtype, ("auto", *DTYPES))


def with_cache(teacher: LiveTeacher, cfg: DictConfig, data: Any, trainer: DictConfig) -> LiveTeacher | CachedTeacher:
    """`teacher` behind a table, as `model.teacher_cache` says: auto, off, memory or a folder.

    `auto` takes `outputs/teacher_cache`, unless the disk is too small for the full table, and says so. Raises UserError
    if a place that was asked for cannot hold it.
    """
    where = str(cfg.model.teacher_cache)
    if where == "off":
        return teacher
    samples, views, classes = data.sizes["train"], data.num_views, data.num_classes
    epoch_views = getattr(data, "epoch_views", None)  # a data set of one's own need not tell
    storage = _storage(cfg.model.teacher_cache_dtype, trainer.precision)
    size = LogitTable.size(samples * (views or trainer.max_epochs), classes, DTYPES[storage])
    folder = None
    if where == "memory":
        if views is None:
            raise UserError("model.teacher_cache=memory needs numbered views (crop and flip only); use a folder or off")
        problem = _too_large(size, free_memory(), "main memory")
    else:
        root = Path(DEFAULT_FOLDER if where == "auto" else where)
        name = f"{data.name}-{slug(cfg.model.teacher)}-{fingerprint(teacher, data, trainer.precision)}-{storage}"
        folder = root / name
        problem = _too_large(size - _used(folder), *_free(folder))
    if problem and where != "auto":
        raise UserError(f"model.teacher_cache={where}: {problem}; choose another place, or off")
    if problem:
        say(f"teacher cache: {problem}; the teacher is run live")
        return teacher
    say(f"teacher cache: {folder or where}, up to {size / 1e6:,.1f} MB")
    return CachedTeacher(teacher, folder, samples, classes, views, DTYPES[storage], data.seed, epoch_views)


def fingerprint(teacher: LiveTeacher, data: Any, precision: str) -> str:
    """12 hex digits of everything that decides a logit: weights, normalization, data, views, precision."""
    digest = hashlib.sha256(json.dumps([data.fingerprint(), precision]).encode())
    modules: list[nn.Module] = [teacher.model, *([teacher.view] if teacher.view else [])]
    for module in modules:
        # the layers, and options such as strides, that no tensor shows
        digest.update(repr((module, getattr(module, "size", None))).encode())
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _storage(wanted: str, precision: str) -> str:
    """`fp16` or `fp32`; `auto`: autocast answers in half precision, which fp16 holds without loss."""
    if wanted == "auto":
        return "fp32" if precision in ("32-true", "64-true") else "fp16"
    return wanted


def _too_large(size: int, free: int | None, place: str) -> str | None:
    if free is None or size < SHARE * free:
        return None
    return f"the full table takes {size / 1e9:,.2f} GB more, and {place} has {free / 1e9:,.2f} GB free"


def _used(folder: Path) -> int:
    """Bytes that the disk holds of it already: files are sparse until they are filled."""
    return sum(f.stat().st_blocks * 512 for f in folder.glob("*.bin"))


def _free(folder: Path) -> tuple[int, str]:
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free, str(there)
