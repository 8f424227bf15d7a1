"""Storage of a teacher's answers: the place, the type, and a check that there is room."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from kd_lightning.data.module import DataModule
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.cache.table import LogitTable
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.utils.checks import UserError, choice
from kd_lightning.utils.console import say
from kd_lightning.utils.hardware import free_memory
from kd_lightning.utils.names import slug

DEFAULT_FOLDER = "outputs/teacher_cache"
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
SHARE = 0.9  # of the free disk or memory that a full table may take


@dataclass(frozen=True)
class CacheSpec:
    """Place and type of the stored answers. Raises UserError for an unknown type."""

    place: str
    """`auto`, `off`, `memory`, or a folder: `model.teacher_cache`."""
    dtype: str
    """`auto`, `fp16` or `fp32`: `model.teacher_cache_dtype`."""
    epochs: int
    """Number of epochs that are trained, which views without numbers multiply with."""

    def __post_init__(self) -> None:
        choice("model.teacher_cache_dtype", self.dtype, ("auto", *DTYPES))


def with_cache(
    teacher: LiveTeacher, name: str, data: DataModule, spec: CacheSpec, precision: str
) -> LiveTeacher | CachedTeacher:
    """Return `teacher` behind a table of its answers, as `spec` says.

    `auto` takes `outputs/teacher_cache`, unless the disk is too small for the full table, and says so.

    Raises:
        UserError: If a place that was asked for cannot hold the table.
    """
    if spec.place == "off":
        return teacher
    samples, views, classes = data.sizes["train"], data.num_views, data.num_classes
    storage = _storage(spec.dtype, precision)
    size = LogitTable.size(samples * (views or spec.epochs), classes, DTYPES[storage])
    folder = None
    if spec.place == "memory":
        if views is None:
            raise UserError("model.teacher_cache=memory needs numbered views (crop and flip only); use a folder or off")
        problem = _too_large(size, free_memory(), "main memory")
    else:
        root = Path(DEFAULT_FOLDER if spec.place == "auto" else spec.place)
        folder = root / f"{data.name}-{slug(name)}-{fingerprint(teacher, data, precision)}-{storage}"
        problem = _too_large(size - _used(folder), *_free(folder))
    if problem and spec.place != "auto":
        raise UserError(f"model.teacher_cache={spec.place}: {problem}; choose another place, or off")
    if problem:
        say(f"teacher cache: {problem}; the teacher is run live")
        return teacher
    most = f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
    say(f"teacher cache: {folder or spec.place}, up to {most}", detail=True)
    return CachedTeacher(teacher, folder, data, DTYPES[storage])


def fingerprint(teacher: LiveTeacher, data: DataModule, precision: str) -> str:
    """Return 12 hex digits of everything that decides a logit: weights, inputs, data, views, precision."""
    raw = teacher.adapter is not None and teacher.adapter.reads_raw
    seen = data.samples_fingerprint() if raw else data.fingerprint()
    digest = hashlib.sha256(json.dumps([seen, precision]).encode())
    modules: list[nn.Module] = [teacher.model, *([teacher.adapter] if teacher.adapter else [])]
    for module in modules:
        digest.update(repr(module).encode())  # layers, and options such as strides, that no tensor shows
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _storage(wanted: str, precision: str) -> str:
    """Return `fp16` or `fp32`; `auto` is fp16 where autocast answers in half precision, which loses nothing."""
    if wanted == "auto":
        return "fp32" if precision in ("32-true", "64-true") else "fp16"
    return wanted


def _too_large(size: int, free: int | None, place: str) -> str | None:
    if free is None or size < SHARE * free:
        return None
    return f"the full table takes {size / 1e9:,.2f} GB more, and {place} has {free / 1e9:,.2f} GB free"


def _used(folder: Path) -> int:
    """Return the bytes that the disk holds of it already: files are sparse until they are filled."""
    return sum(f.stat().st_blocks * 512 for f in folder.glob("*.bin"))


def _free(folder: Path) -> tuple[int, str]:
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free, str(there)
