"""Calibration: whether a probability means what it says. Reliability in bins, Brier score, temperature scaling.

Shapes: N samples, C classes; `y` are labels `[N]`. Samples whose label is unknown (below 0) are ignored.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15
FEWEST = 100
"""Samples below which a fitted temperature says more about them than about the network."""
MAX_TEMPERATURE = 10.0  # and at least 1/10: a network with very few errors would be sharpened without end


@dataclass(frozen=True)
class Reliability:
    """Predictions in `BINS` bins of equal width by their confidence; means are 0 in an empty bin."""

    confidence: list[float]
    """Mean largest probability."""
    accuracy: list[float]
    """Fraction that is right."""
    count: list[int]

    @staticmethod
    def of(probabilities: Tensor, y: Tensor) -> "Reliability":
        """Return the bins of probabilities `[N, C]`."""
        return Reliability.from_sums(bin_sums(*labelled(probabilities.double(), y)))

    @staticmethod
    def from_sums(sums: Tensor) -> "Reliability":
        """Return the bins of what `bin_sums` returned."""
        count, confidence, right = (row.tolist() for row in sums)
        at_least_1 = [max(1.0, n) for n in count]
        return Reliability(
            [c / n for c, n in zip(confidence, at_least_1, strict=True)],
            [r / n for r, n in zip(right, at_least_1, strict=True)],
            [round(n) for n in count],
        )

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over the samples of |accuracy − confidence| of their bin."""
        gaps = zip(self.confidence, self.accuracy, self.count, strict=True)
        return sum(abs(a - c) * n for c, a, n in gaps) / max(1, sum(self.count))


def labelled(values: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of `values` `[N, …]` whose label is known, and these labels."""
    known = y >= 0
    return values[known], y[known]


def bin_sums(probabilities: Tensor, y: Tensor) -> Tensor:
    """Return samples, sum of their confidence, and how many are right, `[3, BINS]`, in the type of `probabilities`.

    Bin m is ((m−1)/15, m/15] (Guo et al. 2017, arXiv 1706.04599, section 2). All labels must be known.
    """
    confidence, predicted = probabilities.max(1)
    edges = torch.arange(1, BINS, dtype=confidence.dtype, device=confidence.device) / BINS
    inside = F.one_hot(torch.bucketize(confidence, edges), BINS).to(confidence.dtype)
    values = torch.stack([torch.ones_like(confidence), confidence, (predicted == y).to(confidence.dtype)])
    return (values[:, :, None] * inside).sum(1)


def brier(probabilities: Tensor, y: Tensor) -> float:
    """Return the mean squared distance of `[N, C]` to the one-hot labels, in [0, 2] (Brier 1950)."""
    probabilities, y = labelled(probabilities.double(), y)
    return float((probabilities - F.one_hot(y, probabilities.shape[1])).square().sum(1).mean())


def fit_temperature(logits: Tensor, y: Tensor) -> float:
    """Return the temperature T in [1/10, 10] for which softmax(z/T) has the least NLL on logits `[N, C]`.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599, section 4.2): the predicted classes stay the same. Returns 1
    if no label is missed, since the NLL would then fall without end for T → 0, and if fewer than `FEWEST` are known.
    """
    logits, y = labelled(logits, y)
    if len(y) < FEWEST or bool((logits.argmax(1) == y).all()):
        return 1.0
    # The NLL is convex in 1/T, and its slope is mean(E[z] − z_y) with E under softmax(z/T): bisect for its zero.
    z = logits.double()
    z_y = z.gather(1, y[:, None]).squeeze(1)
    low, high = -math.log(MAX_TEMPERATURE), math.log(MAX_TEMPERATURE)  # of log(1/T)
    for _ in range(50):
        middle = (low + high) / 2
        expected = ((z * math.exp(middle)).softmax(1) * z).sum(1)
        low, high = (low, middle) if (expected - z_y).mean() > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def calibrated_scores(logits: Tensor, y: Tensor, temperature: float) -> dict[str, float]:
    """Return `nll` in nats, `ece` in 15 bins and `brier` in [0, 2] of softmax(z/T) of logits `[N, C]`."""
    z, y = labelled(logits.double() / temperature, y)
    p = z.softmax(1)
    return {"nll": float(F.cross_entropy(z, y)), "ece": Reliability.of(p, y).ece, "brier": brier(p, y)}
