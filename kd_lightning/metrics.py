"""Scores of validation and test data: accumulated on the device, exact over any number of processes."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from kd_lightning.utils.calibration import BINS, Reliability, bin_sums, labelled


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
