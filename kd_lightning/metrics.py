"""Scores of validation and test data: accumulated on the device, exact over any number of processes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from kd_lightning.utils.calibration import BINS, Reliability, bin_sums, labelled
from kd_lightning.utils.names import task_name


class Scores(nn.Module):
    """Scores of a student, and, where there is a teacher, of the teacher and of how well the student follows it.

    `accuracy`, `top5` (where classes > 5), `agreement` (same top-1) are fractions in [0, 1]; `ece` is the expected
    calibration error in 15 bins (Guo et al. 2017, arXiv 1706.04599, eq. 3); `nll`, `entropy` (of the answer) and `kl`,
    KL(teacher ‖ student), are nats per sample at T = 1. Samples of unknown class count in `agreement` and `kl` only.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        metrics: Any = {"accuracy": Mean(_is_right), "nll": Mean(_nll), "entropy": Mean(_entropy)}
        if num_classes > 5:
            metrics["top5"] = Mean(_is_in_top5)
        metrics |= {"bins": Bins(), "confusion": MulticlassConfusionMatrix(num_classes, validate_args=False)}
        # Groups would join metrics that happen to have equal sums after the first batch.
        self.student = MetricCollection(metrics, compute_groups=False)
        self.teacher = self.student.clone()
        self.fidelity = MetricCollection({"agreement": Mean(_agrees), "kl": Mean(_kl)}, compute_groups=False)
        self.detail: dict[str, dict[str, Any]] = {}
        """Details of the last evaluation: model → `confusion`, counts `[C][C]` (rows are true classes, columns are
        predicted ones), `reliability` (fields of `Reliability`) and `ece`."""

    def of(self, task: str) -> "Scores":
        """Return the scores of one task; `""` is the only one of ordinary data."""
        return self

    @staticmethod
    def of_step(student: Tensor, teacher: Tensor | None, y: Tensor) -> dict[str, Tensor]:
        """Return accuracy and agreement of one training batch; see `update`."""
        predicted, known = student.detach().argmax(1), y >= 0  # others are distilled only
        scores = {"accuracy": ((predicted == y) & known).sum() / known.sum().clamp(min=1)}
        if teacher is not None:
            scores["agreement"] = (predicted == teacher.argmax(1)).float().mean()
        return scores

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor | None, y: Tensor) -> None:
        """Add logits `[B, C]` and labels `[B]`, which are below 0 where unknown."""
        student = student.float()
        self.student.update(*labelled(student, y))
        if teacher is not None:
            teacher = teacher.float()
            self.teacher.update(*labelled(teacher, y))
            self.fidelity.update(student, teacher)

    def compute(self) -> dict[str, float]:
        """Return the scores over all processes, the teacher's own prefixed by `teacher_`, and start afresh."""
        scores, detail = _finish(self.student)
        self.detail = {"student": detail}
        if self.fidelity["kl"].update_called:
            teacher, self.detail["teacher"] = _finish(self.teacher)
            scores |= {name: float(value) for name, value in self.fidelity.compute().items()}
            scores |= {f"teacher_{name}": value for name, value in teacher.items()}
        for metrics in (self.student, self.teacher, self.fidelity):
            metrics.reset()
        return scores

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Scores":
        """Move the sums to another device, never to another dtype: bf16 would count to 256 and no further."""
        return super()._apply(lambda sums: fn(sums).to(sums.dtype), recurse)


class TaskScores(nn.Module):
    """Scores of a student with several heads: those of each task as `task/accuracy`, and their means as `accuracy`.

    A mean is over the tasks that have the score.

    Args:
        num_classes: Task → its number of classes.
    """

    def __init__(self, num_classes: Mapping[str, int]):
        super().__init__()
        self.tasks = tuple(num_classes)
        self.each = nn.ModuleList(Scores(classes) for classes in num_classes.values())

    def of(self, task: str) -> Scores:
        """Return the scores of one task."""
        scores = self.each[self.tasks.index(task)]
        assert isinstance(scores, Scores)
        return scores

    def of_step(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor] | None, y: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return accuracy and agreement of one training batch, by task and their means; see `Scores.of_step`."""
        taught = teacher or {}
        return _with_means({task: Scores.of_step(student[task], taught.get(task), y[task]) for task in self.tasks})

    def update(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor] | None, y: Mapping[str, Tensor]
    ) -> None:
        """Add logits and labels by task; `teacher` lacks tasks that have none."""
        taught = teacher or {}
        for task in self.tasks:
            self.of(task).update(student[task], taught.get(task), y[task])

    def compute(self) -> dict[str, float]:
        """Return the scores over all processes, and start afresh."""
        return _with_means({task: self.of(task).compute() for task in self.tasks})


def make_scores(num_classes: int | Mapping[str, int]) -> Scores | TaskScores:
    """Return the scores of one task, or of several by their numbers of classes."""
    return TaskScores(num_classes) if isinstance(num_classes, Mapping) else Scores(num_classes)


def _with_means(by_task: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    every = dict.fromkeys(name for scores in by_task.values() for name in scores)
    found = {name: [scores[name] for scores in by_task.values() if name in scores] for name in every}
    means = {name: sum(values) / len(values) for name, values in found.items()}
    return means | {task_name(task, name): value for task, scores in by_task.items() for name, value in scores.items()}


class Mean(MeanMetric):
    """Mean over all samples of `of(*inputs)`, a value for each sample.

    NaN stays NaN: a student that diverged must not look better than it is.
    """

    def __init__(self, of: Callable[..., Tensor]) -> None:
        super().__init__(nan_strategy="disable")
        self.of = of

    def update(self, *inputs: Tensor) -> None:  # type: ignore[override]  # as a collection calls its metrics
        super().update(self.of(*inputs))


class Bins(Metric):
    """Sums of `bin_sums`, `[3, BINS]`: the same few numbers for any number of samples."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, BINS), dist_reduce_fx="sum")

    def update(self, logits: Tensor, y: Tensor) -> None:
        self.sums += bin_sums(logits.softmax(1), y)

    def compute(self) -> Tensor:
        return self.sums


def _finish(metrics: MetricCollection) -> tuple[dict[str, float], dict[str, Any]]:
    """Return scores and detail of one model."""
    values = metrics.compute()
    counts, confidence, right = sums = values.pop("bins")
    confusion = values.pop("confusion").tolist()
    values["ece"] = (right - confidence).abs().sum() / counts.sum()
    order = ("accuracy", "top5", "nll", "entropy", "ece")  # a collection sorts by name
    scores = {name: float(values[name]) for name in order if name in values}
    return scores, {"confusion": confusion, "reliability": asdict(Reliability.from_sums(sums)), "ece": scores["ece"]}


def _is_right(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(1) == y).float()


def _is_in_top5(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.topk(5).indices == y[:, None]).any(1).float()


def _nll(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the entropy of softmax: 0 is sure, ln C is no idea."""
    return torch.special.entr(logits.softmax(1)).sum(1)  # 0·ln 0 is 0


def _agrees(student: Tensor, teacher: Tensor) -> Tensor:
    return (student.argmax(1) == teacher.argmax(1)).float()


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    log_s, log_t = student.log_softmax(1), teacher.log_softmax(1)
    return F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1)
