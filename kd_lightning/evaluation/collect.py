"""The numbers of `evaluation.json`, measured."""

from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from kd_lightning.evaluation.calibration import fit_temperature
from kd_lightning.evaluation.inference import Answer, Inference
from kd_lightning.evaluation.opened import Subject
from kd_lightning.evaluation.robustness import robustness
from kd_lightning.evaluation.scores import fidelity, score
from kd_lightning.runs.names import student_name
from kd_lightning.teachers.build import image_sizes
from kd_lightning.training.summary import model_size, teacher_name
from kd_lightning.types import Batch
from kd_lightning.utils import hardware
from kd_lightning.utils.latency import BATCHES, latency

SCHEMA = 1  # of evaluation.json


def measure(subject: Subject, images: int) -> dict[str, Any]:
    """Scores, robustness on `images` test images (0: left out), sizes and latency; shows its progress on stderr.

    See `kd_lightning.evaluate` for what it returns.
    """
    data, metrics = subject.data, subject.run.metrics
    inference = Inference.like(metrics, subject.config.trainer.accelerator)
    answers = {name: inference.student(model) for name, model in subject.students.items()}
    if subject.teacher is not None:
        answers["teacher"] = inference.teacher(subject.teacher)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        scores = _scores(inference, answers, data, progress)
        if images:
            passes = progress.add_task("corrupted images", total=16)
            for name, accuracies in robustness(
                inference, answers, data, images, lambda: progress.advance(passes)
            ).items():
                scores[name]["robustness"] = accuracies
        student, teacher = _costs(inference, subject, answers, progress)
    student |= {name: {"epoch": metrics["student"][name]["epoch"]} | scores[name] for name in subject.students}
    return {
        "schema": SCHEMA,
        "run": str(subject.run.path),
        "data": {"name": data.name, "classes": list(data.classes), "sizes": data.sizes},
        "student": student,
        "teacher": None if teacher is None else teacher | scores["teacher"],
        "note": subject.note,
        "images": min(images, data.sizes["test"]),
        "precision": inference.precision,
    } | hardware.describe(inference.accelerator)


def _scores(inference: Inference, answers: Mapping[str, Answer], data: Any, progress: Progress) -> dict[str, Any]:
    """Model → `test`; the temperature comes from validation images."""

    def logits(split: str) -> tuple[dict[str, Tensor], Tensor]:
        steps = -(-data.sizes[split] // data.eval_batch_size)
        batches = progress.track(inference.batches(data, split), total=steps, description=f"{split} images")
        return inference.logits(answers, batches)

    temperatures: dict[str, float] = {}
    if data.sizes["val"]:
        held_out, y = logits("val")
        temperatures = {name: fit_temperature(z, y) for name, z in held_out.items()}
    test, y = logits("test")
    scores = {name: {"test": score(z, y, temperatures.get(name))} for name, z in test.items()}
    if "teacher" in test:
        for name in answers.keys() - {"teacher"}:
            scores[name]["test"] |= fidelity(test[name], test["teacher"])
    return scores


def _costs(
    inference: Inference, subject: Subject, answers: Mapping[str, Answer], progress: Progress
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Name, sizes and latency of the student and of the teacher (several: together, one after the other)."""
    chosen = next(iter(subject.students))
    models: dict[str, list[nn.Module]] = {chosen: [subject.students[chosen]]}
    pixels = {chosen: [subject.data.image_size]}
    student = student_name(subject.about["name"], subject.about["kwargs"])
    names = {chosen: student, "teacher": teacher_name(subject.config)}
    if subject.teacher is not None:
        models["teacher"], pixels["teacher"] = subject.teacher.models, image_sizes(subject.config, subject.data)
    image = next(inference.batches(subject.data, "test")).x[0].to(inference.dtype)
    costs = []
    for name, networks in progress.track(models.items(), description="latency"):
        costs.append(
            {"name": names[name]}
            | model_size(networks, pixels[name])
            | {"bytes": sum(_bytes(network) for network in networks)}
            | {"latency": {str(n): latency(_direct(answers[name]), image, n) for n in BATCHES}}
        )
    return costs[0], costs[1] if len(costs) > 1 else None


def _direct(answer: Answer) -> Any:
    nothing = torch.empty(0, dtype=torch.long)
    return lambda x: answer(Batch(x, nothing, nothing))


def _bytes(model: nn.Module) -> int:
    """Of its weights and buffers as a safetensors file."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    return len(safetensors.torch.save(state))
