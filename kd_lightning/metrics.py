"""What is measured on validation and test data: accumulated on the device, exact over any number of processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

BINS = 15


class Scores(nn.Module):
    """Scores of a student, and, where there is a teacher, of the teacher and of how well the student follows it.

    `accuracy`, `top5` (where classes > 5), `agreement` (same top-1) are fractions in [0, 1]; `ece` is the expected
    calibration error in 15 bins (Guo et al. 2017, arXiv 1706.04599, eq. 3); `nll`, `entropy` (of the answer) and `kl`,
    KL(teacher ‖ student), are nats per sample at T = 1.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.student = _classifier_metrics(num_classes)
        self.teacher = _classifier_metrics(num_classes)
        self.fidelity = nn.ModuleDict({"agreement": _mean(), "kl": _mean()})
        self._confusion = nn.ModuleDict({name: _confusion(num_classes) for name in ("student", "teacher")})
        self.detail: dict[str, dict[str, Any]] = {}
        """Model → `confusion`, counts `[C][C]` (rows are true classes, columns what it said), `reliability` (see
        `bin_means`) and `ece`, of the last evaluation."""

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor | None, y: Tensor) -> None:
        """Takes logits `[B, C]` and labels `[B]`."""
        student = student.float()
        _update(self.student, student, y)
        _metric(self._confusion["student"]).update(student, y)
        if teacher is not None:
            teacher = teacher.float()
            _update(self.teacher, teacher, y)
            _metric(self._confusion["teacher"]).update(teacher, y)
            _metric(self.fidelity["agreement"]).update((student.argmax(1) == teacher.argmax(1)).float())
            log_s, log_t = student.log_softmax(1), teacher.log_softmax(1)
            _metric(self.fidelity["kl"]).update(F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1))

    def compute(self) -> dict[str, float]:
        """Gathers over all processes; the teacher's own scores are prefixed `teacher_`. Starts afresh."""
        scores, models = dict(self.student.items()), {"student": self.student}
        if _metric(self.fidelity["kl"]).update_called:
            scores |= self.fidelity
            scores |= {f"teacher_{name}": metric for name, metric in self.teacher.items()}
            models["teacher"] = self.teacher
        values = {name: float(_metric(metric).compute()) for name, metric in scores.items()}
        self.detail = {}
        for name, metrics in models.items():
            counts: list[list[int]] = _metric(self._confusion[name]).compute().tolist()
            bins: Any = metrics["ece"]
            self.detail[name] = {"confusion": counts, "reliability": bins.means, "ece": float(bins.compute())}
        for metric in (*scores.values(), *self._confusion.values()):
            _metric(metric).reset()
        return values


class Calibration(Metric):
    """Predictions in `BINS` bins of equal width by their confidence; computes the expected calibration error.

    Keeps three sums a bin, whatever the number of samples, which processes add up.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.means: dict[str, list[float]] = {}
        """What was computed last: see `bin_means`."""
        self.add_state("sums", torch.zeros(3, BINS), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, y: Tensor) -> None:
        """Takes `[B, C]` and labels `[B]`."""
        self.sums += bin_sums(probabilities, y)

    def compute(self) -> Tensor:
        count, confidence, right = self.sums  # of all processes, for as long as this takes
        self.means = bin_means(self.sums)
        return (right - confidence).abs().sum() / count.sum()


def bin_sums(probabilities: Tensor, y: Tensor) -> Tensor:
    """Samples, their confidence and how many are right, `[3, BINS]`; bin m is ((m−1)/15, m/15] (arXiv 1706.04599, §2).

    Of probabilities `[N, C]` and labels `[N]`, in the type of the former; without waiting for the device.
    """
    confidence, said = probabilities.max(1)
    edges = torch.arange(1, BINS, dtype=confidence.dtype, device=confidence.device) / BINS
    inside = F.one_hot(torch.bucketize(confidence, edges), BINS).to(confidence.dtype)
    values = torch.stack([torch.ones_like(confidence), confidence, (said == y).to(confidence.dtype)])
    return (values[:, :, None] * inside).sum(1)


def bin_means(sums: Tensor) -> dict[str, list[float]]:
    """What `bin_sums` returned as `count`, mean `confidence` and `accuracy` of each bin."""
    count, confidence, right = (row.tolist() for row in sums)
    of = [max(1.0, n) for n in count]
    return {
        "confidence": [c / n for c, n in zip(confidence, of, strict=True)],
        "accuracy": [r / n for r, n in zip(right, of, strict=True)],
        "count": [round(n) for n in count],
    }


def entropy(logits: Tensor) -> Tensor:
    """Of softmax of `[B, C]`, in nats, `[B]`: 0 is sure, ln C is no idea."""
    return torch.special.entr(logits.softmax(1)).sum(1)  # 0·ln 0 is 0


def _mean() -> MeanMetric:
    return MeanMetric(nan_strategy="disable")  # a student that diverged is not to look better than it is


def _confusion(num_classes: int) -> MulticlassConfusionMatrix:
    return MulticlassConfusionMatrix(num_classes, validate_args=False)


def _classifier_metrics(num_classes: int) -> nn.ModuleDict:
    metrics: dict[str, nn.Module] = {"accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
    if num_classes > 5:
        metrics["top5"] = MulticlassAccuracy(num_classes, top_k=5, average="micro", validate_args=False)
    return nn.ModuleDict(metrics | {"nll": _mean(), "entropy": _mean(), "ece": Calibration()})


def _update(metrics: nn.ModuleDict, logits: Tensor, y: Tensor) -> None:
    for name, metric in metrics.items():
        if name == "nll":
            _metric(metric).update(F.cross_entropy(logits, y, reduction="none"))
        elif name == "entropy":
            _metric(metric).update(entropy(logits))
        else:
            _metric(metric).update(logits.softmax(1) if name == "ece" else logits, y)


def _metric(module: nn.Module) -> Metric:
    assert isinstance(module, Metric)
    return module
