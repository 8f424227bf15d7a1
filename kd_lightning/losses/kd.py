"""Logit distillation."""

from typing import Any

from torch import Tensor

from kd_lightning.losses.functional import DIVERGENCES, divergence, kd
from kd_lightning.losses.functional._common import full_precision
from kd_lightning.losses.functional.logits import log_p
from kd_lightning.losses.logit_method import LogitMethod
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import choice, number


class KD(LogitMethod):
    """Hinton distillation at temperature T, or with another divergence than the KL.

    Args:
        temperature: T, > 0.
        standardize: Give the logits of both networks mean 0 and standard deviation 1 (arXiv 2403.01427).
        divergence: `forward_kl`, `reverse_kl` (the student prefers the teacher's likely classes to covering them all),
            `jensen_shannon` (generalized, between the two; arXiv 2306.13649), or `total_variation`.
        beta: Share of the teacher in the mixture of `jensen_shannon`, in [0, 1]: 0 is the forward KL, 1 the reverse KL.
        adapt: Follow the teacher sample by sample: `weight` multiplies a sample's divergence by the teacher's
            confidence in it; `temperature` softens a sample the more the surer the teacher is,
            `T_i = 1 + (T − 1)·confidence`.
        by: Confidence is `1 − H(p_t)/ln C` by `entropy`, and the label's probability by `correctness`.

    Raises:
        UserError: For a wrong value.

    Matches: logits, softened
    Formula: `T²·KL(p_t(T) ‖ p_s(T))`
    Paper: Hinton et al. 2015, arXiv 1503.02531
    """

    def __init__(
        self,
        temperature: Any = 2.0,
        standardize: bool = False,
        divergence: str = "forward_kl",
        beta: float = 0.5,
        adapt: str | None = None,
        by: str = "entropy",
        alpha: Any = 0.5,
        ce_weight: Any = 1.0,
    ):
        super().__init__(temperature, alpha, ce_weight, standardize)
        self.divergence = choice("loss.divergence", divergence, tuple(DIVERGENCES))
        self.beta = number("loss.beta", beta, ge=0, le=1)
        self.adapt = choice("loss.adapt", adapt, (None, "weight", "temperature"))
        self.by = choice("loss.by", by, ("entropy", "correctness"))
        self.needs_labels = adapt is not None and by == "correctness"

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        """Return the mean divergence of the logits `[B, C]`, in nats times T² (total variation: times T)."""
        s, t = self.logits(student, teacher)
        if self.adapt is None and self.divergence == "forward_kl":
            return kd(s, t, self.temperature())
        how: dict[str, Any] = {"kind": self.divergence, "beta": self.beta}
        if self.adapt is None:
            return divergence(s, t, self.temperature(), **how)
        assert teacher is not None
        sure = confidence(teacher.logits, batch.y, self.by)
        if self.adapt == "weight":
            return divergence(s, t, self.temperature(), weight=sure, **how)
        return divergence(s, t, 1 + (self.temperature() - 1) * sure, **how)


@full_precision
def confidence(t: Tensor, y: Tensor, by: str) -> Tensor:
    """Return how sure the teacher's logits `[B, C]` are, in [0, 1], `[B]`: by their entropy, or of the label `y`."""
    log = log_p(t)
    if by == "correctness":
        return log.gather(1, y[:, None])[:, 0].exp()
    # ln C as the entropy of equal probabilities, a tensor, so that one class divides 0 by the least step, not by 0
    most = log.new_full((), t.shape[1]).log().clamp(min=1e-7)  # new_tensor would make a GPU wait
    return (1 + (log.exp() * log).sum(1) / most).clamp(0, 1)
