"""Everything that `evaluation.json` holds, measured."""

from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
from rich.console import Console
from rich.progress import Progress
from torch import nn
from torch.utils._pytree import tree_leaves

from kd_lightning import runs
from kd_lightning.data.images.module import ImageDataModule
from kd_lightning.data.module import DataModule, Split
from kd_lightning.evaluation.found import FoundTeacher
from kd_lightning.evaluation.inference import Answer, Inference
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.evaluation.robustness import PASSES, robustness
from kd_lightning.evaluation.scores import fidelity, score
from kd_lightning.runs.names import student_name, teacher_name
from kd_lightning.training.summary import model_size
from kd_lightning.types import batch_of, part
from kd_lightning.utils import hardware
from kd_lightning.utils.calibration import fit_temperature
from kd_lightning.utils.console import say
from kd_lightning.utils.latency import BATCHES, latency
from kd_lightning.utils.names import task_name

SCHEMA = 1  # of evaluation.json


def collect(opened: OpenedRun, images: int) -> dict[str, Any]:
    """Measure scores, robustness, sizes and latency of a run's models; show the progress on stderr.

    Args:
        opened: The run.
        images: Number of test images to corrupt; 0 leaves robustness out, as does data of another kind.

    Returns:
        What `kd_lightning.evaluation.record` describes.

    Raises:
        UserError: If the run cannot be evaluated.
    """
    data = opened.data
    inference = Inference.like(opened.run.metrics, opened.config.trainer.accelerator)
    teacher, note = opened.teacher_if_found()
    if note is not None:
        say(note)
    answers = {name: inference.student(model) for name, model in opened.students.items()}
    if teacher is not None:
        answers["teacher"] = inference.teacher(teacher.teacher)
    images = min(images, data.sizes["test"]) if isinstance(data, ImageDataModule) else 0
    with Progress(console=Console(stderr=True), transient=True) as progress:
        scores = _scores(inference, answers, data, progress)
        if images and isinstance(data, ImageDataModule):
            passes = progress.add_task("corrupted images", total=PASSES)
            accuracies = robustness(inference, answers, data, images, lambda: progress.advance(passes))
            for task, models in accuracies.items():
                for name, found in models.items():
                    scores[task][name]["robustness"] = found
        costs = _costs(inference, opened, teacher, answers, progress)
    common = {"note": note, "images": images, "precision": inference.precision}
    common |= hardware.describe(inference.accelerator)
    by_task = {task: _values(opened, task, found, costs) | common for task, found in scores.items()}
    start = {"schema": SCHEMA, "run": str(opened.path), "sha256": opened.run.metrics["sha256"][runs.STUDENT]}
    start |= {"samples": data.samples_fingerprint(), "labels_fingerprint": data.labels_fingerprint()}
    return start | by_task.get("", {"tasks": by_task})


def _values(
    opened: OpenedRun, task: str, scores: Mapping[str, dict[str, Any]], costs: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return what is known of the models in one task."""
    data, students = opened.data.of(task), opened.run.metrics["student"]
    models = {name: {"epoch": students[name]["epoch"]} | scores[name] for name in opened.students}
    teacher = task_name(task, "teacher")
    return {
        "data": {
            "name": data.name,
            "kind": opened.card.preprocessing["kind"],
            "classes": list(data.classes),
            "sizes": data.sizes,
        },
        "select": opened.select,
        "student": costs["student"] | models,
        "teacher": costs[teacher] | scores["teacher"] if teacher in costs else None,
    }


def _scores(
    inference: Inference, answers: Mapping[str, Answer], data: DataModule, progress: Progress
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return task → model → `test` → its scores; the temperature is fitted on validation samples."""

    def logits(split: Split) -> tuple[dict[str, Any], Any]:
        steps = -(-data.sizes[split] // data.eval_batch_size)
        batches = progress.track(inference.batches(data, split), total=steps, description=f"{split} samples")
        return inference.logits(answers, batches)

    val, (test, y) = logits("val") if data.sizes["val"] else None, logits("test")
    found = {}
    for task in data.tasks or ("",):
        models = {name: part(z, task) for name, z in test.items() if not task or task in z}
        scores = {}
        for name, z in models.items():
            temperature = None if val is None else fit_temperature(part(val[0][name], task), part(val[1], task))
            scores[name] = {"test": score(z, part(y, task), temperature)}
            if "teacher" in models and name != "teacher":
                scores[name]["test"] |= fidelity(z, models["teacher"])
        found[task] = scores
    return found


def _costs(
    inference: Inference,
    opened: OpenedRun,
    teacher: FoundTeacher | None,
    answers: Mapping[str, Answer],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Return name, sizes and latency of `student` and `teacher`, by task if there are several.

    Several teachers of one task answer one after the other.
    """
    data, card = opened.data, opened.card
    models: dict[str, tuple[str, Answer, list[nn.Module], list[Any]]] = {
        "student": (student_name(card.name, card.kwargs), answers[opened.select], [opened.student], [data.example(1)])
    }
    for task in data.tasks or ("",):
        own = None if teacher is None else teacher.teacher.of(task)
        if teacher is not None and own is not None:
            inputs = [one.example(data, 1) for one in teacher.networks if one.spec.task == task]
            name = teacher_name(opened.config, task)
            models[task_name(task, "teacher")] = name, inference.teacher(own), own.models, inputs
    return {
        key: {"name": name}
        | model_size(networks, inputs)
        | {"bytes": sum(_bytes(network) for network in networks)}
        | {"latency": {str(n): latency(_direct(answer), inference.inputs(data.example(n)), n) for n in BATCHES}}
        for key, (name, answer, networks, inputs) in progress.track(models.items(), description="latency")
    }


def _direct(answer: Answer) -> Callable[[Any], Any]:
    """Return `answer` as a function of inputs alone."""

    def run(x: Any) -> Any:
        return answer(batch_of(x, len(tree_leaves(x)[0])))

    return run


def _bytes(model: nn.Module) -> int:
    """Return the size of weights and buffers as a safetensors file."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    return len(safetensors.torch.save(state))
