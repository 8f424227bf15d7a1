"""Photos of which nothing names a class: the teacher names those that the student is measured on."""

import copy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from kd_lightning.data.class_folders import check_folder
from kd_lightning.data.images.image_folder import ImageFolderDataModule
from kd_lightning.data.images.labels_file import KEY, Labels, write_labels
from kd_lightning.data.module import DataModule, Split
from kd_lightning.data.tasks import WithTasks
from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.tasks import Tasks
from kd_lightning.teachers.build import build_teacher
from kd_lightning.teachers.classes_of import classes_of
from kd_lightning.teachers.opened import TeacherSpec, open_teachers
from kd_lightning.teachers.stored import NAME
from kd_lightning.training.asking import faults, one_device, progress_bar
from kd_lightning.training.label_checks import check_without_labels
from kd_lightning.types import Teacher
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.distributed import tell
from kd_lightning.utils.signals import stop_if_asked

HELD_OUT: tuple[Split, Split] = ("val", "test")


def name_held_out(
    data: DataModule, loss: Distillation | Tasks, specs: Sequence[TeacherSpec], trainer: DictConfig
) -> None:
    """Let the teacher make the file `data.labels`, if one is given that does not exist.

    Images are held out for validation and test, and the teacher says what class each of them is.

    Args:
        data: The data.
        loss: The loss of the run.
        specs: Its teachers.
        trainer: The `trainer` group, resolved.

    Raises:
        UserError: If there are folders of classes, the loss learns from labels, the teacher cannot name classes, or the
            file cannot be written.
    """
    if not isinstance(data, ImageFolderDataModule) or isinstance(data, WithTasks) or data.labels_file is None:
        return
    path, images = data.labels_file, data
    assert isinstance(loss, Distillation)

    def first() -> None:
        if not path.exists():
            _check(images, path, loss, specs)
            _make(images, path, loss, specs, trainer)

    tell(f"labels {path}", first)  # the other processes wait for the file


def check_labels_file(cfg: DictConfig) -> None:
    """Raise UserError if the file `data.labels` of a run is gone: another one would be another measure."""
    path = cfg.data.get("labels")
    if path is not None and not Path(path).expanduser().is_file():
        raise UserError(f"{KEY}: {path}, by which the run was measured, is not there; give its place with {KEY}=PATH")


def _check(data: ImageFolderDataModule, path: Path, loss: Distillation, specs: Sequence[TeacherSpec]) -> None:
    """Raise UserError if no file of labels can be made, or no run could use it."""
    check_folder("data.root", data.root)
    if not data.is_unsorted:
        raise UserError(
            f"{KEY}={path} does not exist, and is made only for images that lie in {data.root / 'train'} without "
            f"folders of classes; leave out {KEY}"
        )
    if not path.absolute().parent.is_dir():
        raise UserError(f"{KEY}={path}: there is no folder {path.absolute().parent}")
    check_without_labels(loss, specs)
    if any(spec.name == NAME for spec in specs):
        raise UserError(
            f"{KEY}={path} does not exist, and stored answers cannot make it: they have none to the images held out; "
            "let the network that gave them make it, or write it yourself"
        )


def _make(
    data: ImageFolderDataModule, path: Path, loss: Distillation, specs: Sequence[TeacherSpec], trainer: DictConfig
) -> None:
    """Ask the teacher, write the file and tell it."""
    data = copy.copy(data)  # the run reads the file, as every later one
    data.labels = Labels(classes_of(specs[0]))
    data.prepare_data()
    data.setup()
    teacher = build_teacher(open_teachers(specs, data), data, fusion=loss.fusion, precision=trainer.precision)
    fabric = one_device(trainer)
    teacher.apply_(lambda tensor: tensor.to(fabric.device))
    with faults(data), fabric.autocast(), torch.no_grad():
        splits = [split for split in HELD_OUT if data.sizes[split]]
        named = {split: _named(data, split, teacher, fabric.device) for split in splits}
    counts = Counter(name for answers in named.values() for name in answers.values())
    if len(counts) == 1:
        raise UserError(
            f"model.teacher_weights: the teacher says {next(iter(counts))!r} to all {counts.total()} images held out; "
            "check its weights, model.teacher_normalize and model.teacher_classes"
        )
    try:
        by = ", ".join(f"{spec.name} ({spec.weights})" for spec in specs)
        write_labels(path, Labels(data.classes, **named, named_by=by))
    except FileExistsError:
        return  # another job of a sweep was first
    except OSError as e:
        raise UserError(f"{KEY}: cannot write {path}: {e.strerror}") from e
    most = ", ".join(f"{count} × {name}" for name, count in counts.most_common(5)) + ", …" * (len(counts) > 5)
    val, test = (f"{data.sizes[split]:,}" for split in HELD_OUT)
    say(
        f"labels: {val} images are held out for val and {test} for test. The teacher named their classes\n"
        f"        ({most}) in {path}\n"
        "        Until you correct that file, accuracy is agreement with the teacher."
    )


def _named(data: ImageFolderDataModule, split: Split, teacher: Teacher, device: torch.device) -> dict[str, str]:
    """Return file → class as the teacher sees it."""
    order, answers = torch.arange(data.sizes[split]), []
    batches = data.splits[split].batches(order, data.eval_batch_size, data.view_seed, 0, device)
    steps = -(-len(order) // data.eval_batch_size)
    with progress_bar() as bar:
        for batch in bar.track(batches, total=steps, description=f"naming {split}, in batches"):
            stop_if_asked()
            answers += [data.classes[i] for i in teacher.evaluate(batch).logits.argmax(1).tolist()]
    return dict(zip(data.held_out_names(split), answers, strict=True))
