"""Photos of which nothing names a class: the teacher names its classes, and those of the images held out."""

import hashlib
import json
from pathlib import Path

import torch
from omegaconf import DictConfig

from kd_lightning.config import build
from kd_lightning.data.images.image_folder import ImageFolderDataModule
from kd_lightning.data.images.labels_file import Labels, write_labels
from kd_lightning.data.module import Split
from kd_lightning.losses.distillation import Distillation
from kd_lightning.runs.names import teacher_name
from kd_lightning.teachers.build import build_teacher
from kd_lightning.teachers.classes_of import classes_of
from kd_lightning.teachers.exported import weights_checksum
from kd_lightning.teachers.opened import PUBLISHED, TeacherSpec, open_teachers
from kd_lightning.teachers.stored import NAME
from kd_lightning.training.asking import faults, one_device, progress_bar
from kd_lightning.training.label_checks import check_without_labels
from kd_lightning.training.objective import build_loss
from kd_lightning.training.teachers import task_specs
from kd_lightning.training.trainer import resolve_trainer
from kd_lightning.types import Teacher
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.distributed import tell
from kd_lightning.utils.names import slug
from kd_lightning.utils.signals import stop_if_asked

FOLDER = Path("outputs/labels")
SPLITS: tuple[Split, Split] = ("val", "test")


def named_by_teacher(cfg: DictConfig) -> DictConfig:
    """Return the configuration with `data.labels`, if the data is a folder of photos without any class; else as it is.

    Images are held out for validation and test, and the teacher names their classes, once: so a student is measured by
    how often it agrees with its teacher. The file is kept, for other runs and to be corrected.

    Raises:
        UserError: If the loss learns from labels, or the teacher cannot name classes.
    """
    if cfg.data.get("labels", "") is not None:  # other data has no such key
        return cfg
    data = build(cfg.data, "data")
    if not isinstance(data, ImageFolderDataModule) or data.tasks or not data.is_unsorted:
        return cfg
    cfg = cfg.copy()
    cfg.data.labels = tell("labels", lambda: str(_labels_file(cfg, data)))
    return cfg


def _labels_file(cfg: DictConfig, data: ImageFolderDataModule) -> Path:
    """Return the file of labels, made if there is none. Raises UserError."""
    loss = build_loss(cfg.loss, cfg.model, ())
    assert isinstance(loss, Distillation)
    specs = task_specs(cfg.model, [""] if loss.needs_teacher else [], [""])
    check_without_labels(loss, specs)
    if any(spec.name == NAME for spec in specs):
        raise UserError(
            f"data.root: nothing in {data.root} names a class, and stored answers have none to the images held out; "
            f"make {data.root / 'test'} with a folder for each class, or give data.labels"
        )
    data.labels = Labels(list(classes_of(specs)))
    data.prepare_data()
    data.setup()
    opened = open_teachers(specs, data)
    path = FOLDER / f"{slug(data.root.resolve().name)}-{_digest(data, specs)}.json"
    if not path.exists():
        _name(cfg, data, build_teacher(opened, data, fusion=loss.fusion), path)
    val, test = (f"{data.sizes[split]:,}" for split in SPLITS)
    say(
        f"labels: {data.root / 'train'} has no classes. The teacher names those of {val} images for val and\n"
        f"        {test} for test: {path}\n"
        "        Until you correct that file, accuracy is agreement with the teacher."
    )
    return path


def _digest(data: ImageFolderDataModule, specs: tuple[TeacherSpec, ...]) -> str:
    """Return what the labels depend on, as 8 hex digits."""
    weights = [spec.name if spec.weights == PUBLISHED else weights_checksum(Path(spec.weights)) for spec in specs]
    return hashlib.sha256(json.dumps([data.samples_fingerprint(), weights]).encode()).hexdigest()[:8]


def _name(cfg: DictConfig, data: ImageFolderDataModule, teacher: Teacher, path: Path) -> None:
    """Ask the teacher for the classes of the images held out, and write them."""
    fabric = one_device(resolve_trainer(cfg.trainer, least_epochs=0))
    teacher.apply_(lambda tensor: tensor.to(fabric.device))
    named = {}
    for split in SPLITS[data.sizes["val"] == 0 :]:
        order = torch.arange(data.sizes[split])
        batches = data.splits[split].batches(order, data.eval_batch_size, data.view_seed, 0, fabric.device)
        steps, answers = -(-len(order) // data.eval_batch_size), []
        with faults(data), progress_bar() as bar, fabric.autocast(), torch.no_grad():
            for batch in bar.track(batches, total=steps, description=f"naming {split}, in batches"):
                stop_if_asked()
                answers += [data.classes[i] for i in teacher.evaluate(batch).logits.argmax(1).tolist()]
        named[split] = dict(zip(data.held_out_names(split), answers, strict=True))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, Labels(data.classes, **named), teacher_name(cfg))
    except OSError as e:
        raise UserError(f"data.labels: cannot write {path}: {e.strerror}") from e
