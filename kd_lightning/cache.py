"""Fill the teacher cache ahead of a sweep: `python -m kd_lightning.cache model.teacher=resnet50 [data=… …]`."""

import sys

import hydra
import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kd_lightning.checks import UserError
from kd_lightning.cli import clear_errors, fail
from kd_lightning.config import CONF_DIR
from kd_lightning.parts import build_parts
from kd_lightning.quiet import quiet
from kd_lightning.report.terminal import say
from kd_lightning.teachers.cached import CachedTeacher
from kd_lightning.teachers.source import build_teacher
from kd_lightning.train import train
from kd_lightning.types import Batch


def fill(cfg: DictConfig) -> None:
    """Asks every teacher of `cfg` for every view that its table lacks. Raises UserError if views are not numbered."""
    quiet()
    parts = build_parts(cfg)
    data, node = parts.data, parts.trainer
    if data.num_views is None:
        raise UserError(
            "the cache can be filled ahead only where views are numbered: data.augment of pad and flip alone"
        )
    if cfg.model.teacher_cache in ("off", "memory"):
        raise UserError(f"model.teacher_cache={cfg.model.teacher_cache} leaves nothing to fill; use auto or a folder")
    teacher = build_teacher(cfg, data, node, lambda model: (), train)()
    teachers = [one for one in getattr(teacher, "members", [teacher]) if isinstance(one, CachedTeacher)]
    if not teachers:
        return  # `auto` has said why there is no table
    fabric = Fabric(accelerator=node.accelerator, devices=1, precision=node.precision)
    images = data.splits["train"].to(fabric.device)
    teacher.apply_(lambda tensor: tensor.to(fabric.device))
    rows = torch.arange(len(images) * data.num_views, device=fabric.device).split(data.eval_batch_size)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with bar, fabric.autocast():
        for row in bar.track(rows, description="filling, in batches"):
            index, view = row // data.num_views, row % data.num_views
            batch = Batch(images.render(index, view), images.labels[index], index, view)
            for one in teachers:
                one.look_up(batch)
    say(f"every view of {len(images):,} images is in the teacher cache")


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
