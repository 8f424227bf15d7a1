"""Everything that logits and labels tell about a model, as plain numbers."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.evaluation.calibration import brier, reliability
from kd_lightning.losses.functional.logits import kl

FIDELITY_TEMPERATURES = (1, 4)


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Fraction of `[N, C]` whose largest logit is the label."""
    return float((logits.argmax(1) == y).double().mean())


def score(logits: Tensor, y: Tensor, temperature: float | None) -> dict[str, Any]:
    """Of logits `[N, C]` and labels `[N]`: fractions `accuracy` and `top5` (where classes > 5), `nll` in nats, `brier`
    in [0, 2], `ece` in 15 bins; then the three again as `calibrated` by `temperature`; `per_class` accuracy (None for
    a class without images), `confusion` counts `[C][C]` (rows are true classes).
    """
    classes = logits.shape[1]
    scores: dict[str, Any] = {"accuracy": accuracy(logits, y)}
    if classes > 5:
        scores["top5"] = float((logits.topk(5).indices == y[:, None]).any(1).double().mean())
    scores |= _calibration(logits, y)
    if temperature is not None:
        scores["calibrated"] = {"temperature": temperature} | _calibration(logits.double() / temperature, y)
    confusion = torch.bincount(y * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    right, all_of = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    scores["per_class"] = [r / n if n else None for r, n in zip(right, all_of, strict=True)]
    return scores | {"confusion": confusion.tolist()}


def _calibration(logits: Tensor, y: Tensor) -> dict[str, Any]:
    probabilities = logits.double().softmax(1)
    bins = reliability(probabilities, y)
    nll = float(F.cross_entropy(logits.double(), y))
    return {"nll": nll, "brier": brier(probabilities, y), "ece": bins.ece, "reliability": asdict(bins)}


def fidelity(student: Tensor, teacher: Tensor) -> dict[str, float]:
    """How well logits `[N, C]` follow a teacher's: `agreement`, the fraction of equal top-1 classes, and `kl_t1`,
    `kl_t4`: mean KL(teacher ‖ student) in nats of the softmax at T 1 and 4, without the factor T².
    """
    same = float((student.argmax(1) == teacher.argmax(1)).double().mean())
    s, t = student.double(), teacher.double()
    return {"agreement": same} | {f"kl_t{k}": float(kl(s, t, k).mean()) for k in FIDELITY_TEMPERATURES}
