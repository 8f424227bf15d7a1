"""Fill the teacher cache ahead of a sweep: `python -m kd_lightning.cache model.teacher=resnet50 [data=… …]`."""

import sys
from collections.abc import Iterator
from typing import Any

import hydra
import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kd_lightning.cli import clear_errors, fail
from kd_lightning.config import CONF_DIR
from kd_lightning.teachers.build import build_teacher
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.train import train
from kd_lightning.training.build import build_parts
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.quiet import quiet


def fill(cfg: DictConfig) -> None:
    """Asks every teacher of `cfg` for what its table lacks: all views of all training images where views are numbered,
    else the pictures that a run of this configuration, with this seed, will show. Raises UserError.
    """
    quiet()
    parts = build_parts(cfg)
    data, node = parts.data, parts.trainer
    if cfg.model.teacher_cache in ("off", "memory"):
        raise UserError(f"model.teacher_cache={cfg.model.teacher_cache} leaves nothing to fill; use auto or a folder")
    teacher = build_teacher(cfg, data, node, lambda model: (), train)()
    teachers = [one for one in getattr(teacher, "members", [teacher]) if isinstance(one, CachedTeacher)]
    if not teachers:
        return  # `auto` has said why there is no table
    fabric = Fabric(accelerator=node.accelerator, devices=1, precision=node.precision)
    teacher.apply_(lambda tensor: tensor.to(fabric.device))
    images = data.sizes["train"]
    if data.num_views is not None:
        batches, rows = _every_view(data, fabric.device), images * data.num_views
        total, what = -(-rows // data.eval_batch_size), f"every view of {images:,} images"
    else:
        batches = _every_epoch(data, teacher, node.max_epochs, fabric.device)
        total = node.max_epochs * -(-images // data.eval_batch_size)
        what = f"{node.max_epochs} epochs of {images:,} images with seed {data.seed}"
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with bar, fabric.autocast():
        for batch in bar.track(batches, total=total, description="filling, in batches"):
            for one in teachers:
                one.look_up(batch)
    say(f"in the teacher cache: {what}")


def _every_view(data: Any, device: torch.device) -> Iterator[Batch]:
    images = data.splits["train"].to(device)
    for row in torch.arange(len(images) * data.num_views, device=device).split(data.eval_batch_size):
        index, view = row // data.num_views, row % data.num_views
        yield Batch(images.render(index, view), images.labels[index], index, view)


def _every_epoch(data: Any, teacher: Any, epochs: int, device: torch.device) -> Iterator[Batch]:
    everyone = torch.arange(data.sizes["train"])
    for epoch in range(epochs):
        teacher.start_epoch(epoch)
        yield from data.splits["train"].batches(everyone, data.eval_batch_size, data.seed, epoch, device)


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def _main(cfg: DictConfig) -> None:
    try:
        fill(cfg)
    except UserError as e:
        raise SystemExit(fail(e)) from e


if __name__ == "__main__":
    with clear_errors():
        sys.argv += ["hydra.run.dir=.", "hydra/job_logging=none"]  # this is not a run
        _main()
