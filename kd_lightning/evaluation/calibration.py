"""Whether a probability means what it says: Brier score, reliability, and temperature scaling."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from kd_lightning.metrics import bin_means, bin_sums

MOST = 10.0  # a network that errs on very few validation images would be sharpened nearly for ever


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of equal width by their confidence; means are 0 in an empty bin."""

    confidence: list[float]
    """Mean largest probability."""
    accuracy: list[float]
    """Fraction that is right."""
    count: list[int]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over the samples of |accuracy − confidence| of their bin."""
        gaps = zip(self.confidence, self.accuracy, self.count, strict=True)
        return sum(abs(a - c) * n for c, a, n in gaps) / max(1, sum(self.count))


def reliability(probabilities: Tensor, y: Tensor) -> Reliability:
    """Of probabilities `[N, C]` and labels `[N]`; see `kd_lightning.metrics.bin_sums`."""
    means: Any = bin_means(bin_sums(probabilities.double(), y))
    return Reliability(**means)


def brier(probabilities: Tensor, y: Tensor) -> float:
    """Mean over the samples of the squared distance of `[N, C]` to the one-hot labels, in [0, 2] (Brier 1950)."""
    truth = F.one_hot(y, probabilities.shape[1])
    return float((probabilities.double() - truth).square().sum(1).mean())


def fit_temperature(logits: Tensor, y: Tensor) -> float:
    """The T in [1/10, 10] for which softmax(z/T) has the least NLL on logits `[N, C]` and labels `[N]`
    (temperature scaling, arXiv 1706.04599, §4.2); 1 if no label is missed, when the least NLL is that of T → 0.

    The NLL is convex in 1/T and its slope there is mean(E[z] − z_y), E under softmax(z/T): its zero is bisected.
    """
    if bool((logits.argmax(1) == y).all()):
        return 1.0
    z = logits.double()
    z_y = z.gather(1, y[:, None]).squeeze(1)
    low, high = -math.log(MOST), math.log(MOST)  # of log(1/T)
    for _ in range(50):
        middle = (low + high) / 2
        expected = ((z * math.exp(middle)).softmax(1) * z).sum(1)
        low, high = (low, middle) if (expected - z_y).mean() > 0 else (middle, high)
    return math.exp(-(low + high) / 2)
