"""The loss of a run: built from its configuration, and told about the networks before they are trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from kd_lightning.config import build
from kd_lightning.data.hashing import random_bits
from kd_lightning.data.module import DataModule
from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.fusion import Fusion
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.losses.tasks import Tasks
from kd_lightning.models.heads import check_answer
from kd_lightning.models.probe import Probe
from kd_lightning.runs.students import build_student
from kd_lightning.teachers.opened import OpenedTeacher
from kd_lightning.training.label_checks import check_unlabeled, tell_few_labels
from kd_lightning.training.tasks import TASKS, check_tasks, model_of
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import UserError, number, of_task


def build_loss(node: DictConfig, model: DictConfig, tasks: Sequence[str] = ()) -> Distillation | Tasks:
    """Return the loss of the groups `loss` and `model`.

    Args:
        node: The group `loss`: a method, for each task if there are several, or `Tasks` with a method by task.
        model: The group `model`.
        tasks: Names of the tasks of the data, if it has several.

    Raises:
        UserError: If `loss._target_` is no method, or refuses a value.
    """
    if not tasks:
        return _distillation(_method(node), node, model)
    weights: Any = OmegaConf.to_container(node.weights) if node.get("weights") is not None else None
    node = OmegaConf.masked_copy(node, [str(key) for key in node if key != "weights"])
    if node._target_ == TASKS:
        methods = build(_without_ours(node), "loss").methods
        check_tasks("loss.methods", methods, tasks)
        if lacks := [task for task in tasks if task not in methods]:
            raise UserError(f"loss.methods has no method for the task {lacks[0]!r}; CE trains it on its labels alone")
    else:
        methods = {task: _method(node) for task in tasks}
    losses = {}
    for task in tasks:
        with of_task(task):
            losses[task] = _distillation(methods[task], node, model_of(model, task, tasks))
    return Tasks(losses, weights)


def _without_ours(node: DictConfig) -> DictConfig:
    ours = ("fusion", "label_smoothing")  # a method need not have them
    return OmegaConf.masked_copy(node, [str(key) for key in node if key not in ours])


def _method(node: DictConfig) -> Method:
    method = build(_without_ours(node), "loss")
    if isinstance(method, Tasks):
        raise UserError("loss: Tasks is for data with several tasks, such as data=cifar10_tasks; this data has one")
    if not isinstance(method, Method):
        raise UserError(
            f"loss: {node._target_} must be a subclass of kd_lightning.losses.Method, got {type(method).__name__}"
        )
    return method


def _distillation(method: Method, node: DictConfig, model: DictConfig) -> Distillation:
    method.label_smoothing = number("loss.label_smoothing", node.get("label_smoothing", 0.0), ge=0, le=1)
    return Distillation(method, build_fusion(node, model))


def build_fusion(node: DictConfig, model: DictConfig) -> Fusion:
    """Return how the loss `node` makes one teacher of several. Raises UserError."""
    several = isinstance(model.teacher, ListConfig)
    weighting = model.teacher_weighting
    if isinstance(weighting, ListConfig):
        weighting = list(weighting)
    if weighting is not None and not several:
        raise UserError(
            f"model.teacher_weighting={weighting} is for several teachers, got model.teacher={model.teacher}"
        )
    return Fusion(node.get("fusion", "probabilities"), weighting, len(model.teacher) if several else 1)


def prepare_loss(
    loss: Distillation | Tasks,
    student: nn.Module,
    teachers: tuple[OpenedTeacher, ...],
    data: DataModule,
    card: StudentCard,
    seed: int,
) -> None:
    """Let the loss find its layers and make its parameters.

    Raises:
        UserError: If the networks do not give logits for the classes of the data, or have no such layers.
    """
    probe = Probe(student, data.example(2))
    check_logits(probe, data.tasks or {"": data.num_classes}, "model.student")
    pl.seed_everything(seed, workers=True, verbose=False)  # whatever the teacher's initial weights drew
    for task in loss.tasks:
        own = tuple(one for one in teachers if one.spec.task == task)
        with of_task(task):
            _prepare(loss.of(task), task, probe, own, data.of(task), card, seed)


def _prepare(
    loss: Distillation,
    task: str,
    probe: Probe,
    teachers: tuple[OpenedTeacher, ...],
    data: DataModule,
    card: StudentCard,
    seed: int,
) -> None:
    """Prepare the loss of one task; see `prepare_loss`."""
    for one in teachers:
        if not one.has_network:
            continue
        check_logits(Probe(one.model, one.example(data, 2)), {"": one.outputs}, f"model.teacher{one.spec.suffix}")

    def new_student(number: int) -> nn.Module:
        if task:
            raise UserError(f"loss: {loss.name} trains a second student, which several tasks have not; use loss=kd")
        with torch.random.fork_rng():
            torch.manual_seed(random_bits(seed, number))  # the run's own would give the very same weights again
            return build_student(card, "model.student").to(memory_format=torch.channels_last)

    wraps = type(loss.method).wrap_student is not Method.wrap_student
    if loss.is_on and wraps and any(one.adapter is not None and one.adapter.order is not None for one in teachers):
        raise UserError(
            "model.teacher_classes: this loss deploys the teacher's classifier as it is, with its order of classes; "
            "use a loss that keeps the student's own"
        )
    if data.labelled is not None:
        loss.some_unlabeled = True
        if loss.is_on and len(data.labelled) < data.sizes["train"]:
            check_unlabeled(loss, len(data.labelled), data.sizes["train"])
        if loss.needs_teacher:
            tell_few_labels(loss, len(data.labelled), data.sizes["train"])
    teacher = _probe(teachers[0], data) if teachers else None
    loss.prepare(Networks(probe, teacher, data.sizes["train"], new_student, card))
    if loss.teacher_layers and len(teachers) > 1:
        raise UserError(
            f"model.teacher: a loss of features needs exactly one teacher, got {len(teachers)}; use one of logits"
        )


def _probe(one: OpenedTeacher, data: DataModule) -> Probe:
    return (Probe if one.has_layers else LogitsOnly)(one.model, one.example(data, 2))


class LogitsOnly(Probe):
    """Stored answers or an exported file, as a loss sees them. Raises UserError if it asks for layers."""

    @property
    def head_name(self) -> str:
        raise UserError(
            "loss: it reads layers of the teacher, and stored answers and exported files give logits only; "
            "use a loss of logits such as loss=kd"
        )

    def layers(self, wanted: Any, key: str) -> tuple[str, ...]:
        """Raise UserError: there are none."""
        return (self.head_name,)


def check_logits(probe: Probe, classes: Mapping[str, int], key: str) -> None:
    """Raise UserError unless the network answers two samples with logits `[2, C]`, by task if there are several."""
    try:
        logits = probe.logits()
    except UserError:
        raise
    except Exception as e:  # whatever a network says to inputs that it was not made for
        told = f"{type(e).__name__}: {str(e).strip()}".partition("\n")[0][:160]
        raise UserError(f"{key}: the network cannot take the inputs of this data set ({told})") from e
    wanted = [2, classes.get("")]
    if "" in classes and isinstance(logits, Tensor) and list(logits.shape) != wanted:
        raise UserError(f"{key}: the network gives {list(logits.shape)} for 2 samples, but the data wants {wanted}")
    check_answer(f"{key}: the network", logits, classes, 2)
