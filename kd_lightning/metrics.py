"""What is measured on validation and test data: accumulated on the device, exact over any number of processes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassConfusionMatrix


class Scores(nn.Module):
    """Scores of a student, and, where there is a teacher, of the teacher and of how well the student follows it.

    `accuracy`, `top5` (where classes > 5), `agreement` (same top-1) are fractions in [0, 1]; `ece` is the expected
    calibration error in 15 bins (Guo et al. 2017, arXiv 1706.04599, eq. 3); `nll` and `kl`, KL(teacher ‖ student) at
    T = 1, are nats per sample.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.student = _classifier_metrics(num_classes)
        self.teacher = _classifier_metrics(num_classes)
        self.fidelity = nn.ModuleDict({"agreement": _mean(), "kl": _mean()})
        self._confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.confusion: Tensor | None = None
        """Counts `[C, C]` of the last evaluation: rows are true classes, columns what the student said."""

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor | None, y: Tensor) -> None:
        """Takes logits `[B, C]` and labels `[B]`."""
        student = student.float()
        _update(self.student, student, y)
        self._confusion.update(student, y)
        if teacher is not None:
            teacher = teacher.float()
            _update(self.teacher, teacher, y)
            _metric(self.fidelity["agreement"]).update((student.argmax(1) == teacher.argmax(1)).float())
            log_s, log_t = student.log_softmax(1), teacher.log_softmax(1)
            _metric(self.fidelity["kl"]).update(F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1))

    def compute(self) -> dict[str, float]:
        """Gathers over all processes; the teacher's own scores are prefixed `teacher_`. Starts afresh."""
        scores = dict(self.student.items())
        if _metric(self.fidelity["kl"]).update_called:
            scores |= self.fidelity
            scores |= {f"teacher_{name}": metric for name, metric in self.teacher.items()}
        values = {name: float(_metric(metric).compute()) for name, metric in scores.items()}
        self.confusion = self._confusion.compute().cpu()
        for metric in (*scores.values(), self._confusion):
            _metric(metric).reset()
        return values


def _mean() -> MeanMetric:
    return MeanMetric(nan_strategy="disable")  # a student that diverged is not to look better than it is


def _classifier_metrics(num_classes: int) -> nn.ModuleDict:
    metrics: dict[str, nn.Module] = {"accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
    if num_classes > 5:
        metrics["top5"] = MulticlassAccuracy(num_classes, top_k=5, average="micro", validate_args=False)
    metrics["nll"] = _mean()
    metrics["ece"] = MulticlassCalibrationError(num_classes, n_bins=15, validate_args=False)
    return nn.ModuleDict(metrics)


def _update(metrics: nn.ModuleDict, logits: Tensor, y: Tensor) -> None:
    for name, metric in metrics.items():
        if name == "nll":
            _metric(metric).update(F.cross_entropy(logits, y, reduction="none"))
        else:
            _metric(metric).update(logits.softmax(1) if name == "ece" else logits, y)


def _metric(module: nn.Module) -> Metric:
    assert isinstance(module, Metric)
    return module
