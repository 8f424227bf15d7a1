"""Scores of logits and labels, as plain numbers. N samples, C classes; labels below 0 are unknown and ignored."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from kd_lightning.losses.functional.logits import kl
from kd_lightning.utils.calibration import Reliability, calibrated_scores, labelled

FIDELITY_TEMPERATURES = (1, 4)


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Return the fraction of `[N, C]` whose largest logit is the label."""
    logits, y = labelled(logits, y)
    return float((logits.argmax(1) == y).double().mean())


def score(logits: Tensor, y: Tensor, temperature: float | None) -> dict[str, Any]:
    """Return all scores of logits `[N, C]` and labels `[N]`.

    Args:
        logits: Before softmax.
        y: Labels.
        temperature: Calibrates the probabilities; None if none was fitted.

    Returns:
        Fractions `accuracy` and `top5` (where classes > 5); `nll` in nats, `brier` in [0, 2], `ece` in 15 bins and
        `reliability`, its bins; these four again as `calibrated`, with the `temperature`; `per_class` accuracy (None
        for a class without samples); `confusion`, counts `[C][C]` (rows are true classes).
    """
    logits, y = labelled(logits, y)
    classes = logits.shape[1]
    scores: dict[str, Any] = {"accuracy": accuracy(logits, y)}
    if classes > 5:
        scores["top5"] = float((logits.topk(5).indices == y[:, None]).any(1).double().mean())
    scores |= _calibration(logits, y, 1.0)
    if temperature is not None:
        scores["calibrated"] = {"temperature": temperature} | _calibration(logits, y, temperature)
    confusion = torch.bincount(y * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    right, all_of = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    scores["per_class"] = [r / n if n else None for r, n in zip(right, all_of, strict=True)]
    return scores | {"confusion": confusion.tolist()}


def _calibration(logits: Tensor, y: Tensor, temperature: float) -> dict[str, Any]:
    bins = Reliability.of((logits.double() / temperature).softmax(1), y)
    return calibrated_scores(logits, y, temperature) | {"reliability": asdict(bins)}


def fidelity(student: Tensor, teacher: Tensor) -> dict[str, float]:
    """Return how well a student's logits `[N, C]` follow its teacher's.

    Returns:
        `agreement`, the fraction of equal top-1 classes; `kl_t1` and `kl_t4`, the mean KL(teacher ‖ student) in nats
        of the softmax at T 1 and 4, without the factor T².
    """
    same = float((student.argmax(1) == teacher.argmax(1)).double().mean())
    s, t = student.double(), teacher.double()
    return {"agreement": same} | {f"kl_t{k}": float(kl(s, t, k).mean()) for k in FIDELITY_TEMPERATURES}
