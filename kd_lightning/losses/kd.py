"""Logit distillation."""

from typing import Any

from torch import Tensor, nn

from kd_lightning.losses.functional import kd, standardize
from kd_lightning.losses.functional._common import full_precision
from kd_lightning.losses.functional.logits import kl, log_p
from kd_lightning.losses.schedule import Setting, flag
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import choice


class KD(nn.Module):
    """Hinton distillation at temperature T.

    `standardize`: logits of mean 0 and standard deviation 1 on both sides (arXiv 2403.01427). `adapt` follows the
    teacher sample by sample: `weight` multiplies a sample's KL by the teacher's confidence in it, `temperature` softens
    what it is sure of and leaves the rest sharp, `T_i = 1 + (T − 1)·confidence`. The confidence is `1 − H(p_t)/ln C`
    by `entropy`, and the label's probability by `correctness`. Raises UserError for a wrong value.

    Matches: logits, softened
    Formula: `T²·KL(p_t(T) ‖ p_s(T))`
    Paper: Hinton et al. 2015, arXiv 1503.02531
    """

    def __init__(
        self, temperature: Any = 2.0, standardize: bool = False, adapt: str | None = None, by: str = "entropy"
    ):
        super().__init__()
        self.temperature = Setting("loss.temperature", temperature, above=0)
        self.standardize = flag("loss.standardize", standardize)
        self.adapt = choice("loss.adapt", adapt, (None, "weight", "temperature"))
        self.by = choice("loss.by", by, ("entropy", "correctness"))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        """Logits `[B, C]`, of K teachers `[K, B, C]`; returns nats."""
        s, t = logits(student, teacher, self.standardize)
        if self.adapt is None:
            return kd(s, t, self.temperature())
        assert teacher is not None
        return adaptive_kd(s, t, confidence(teacher.logits, batch.y, self.by), self.temperature(), self.adapt)


def logits(student: Outputs, teacher: Outputs | None, standardized: bool = False) -> tuple[Tensor, Tensor]:
    """Both networks' logits, standardized if so wished."""
    assert teacher is not None
    pair = student.logits, teacher.logits
    return (standardize(pair[0]), standardize(pair[1])) if standardized else pair


@full_precision
def confidence(t: Tensor, y: Tensor, by: str) -> Tensor:
    """How sure the teacher's logits `[B, C]` are, in [0, 1], `[B]`: by their entropy, or of the label's class."""
    log = log_p(t)
    if by == "correctness":
        return log.gather(1, y[:, None])[:, 0].exp()
    # ln C as the entropy of equal probabilities, a tensor, so that one class divides 0 by the least step, not by 0
    most = log.new_tensor(t.shape[1]).log().clamp(min=1e-7)
    return (1 + (log.exp() * log).sum(1) / most).clamp(0, 1)


@full_precision
def adaptive_kd(s: Tensor, t: Tensor, sure: Tensor, temperature: float, adapt: str) -> Tensor:
    """`mean_i w_i·T_i²·KL_i` with the confidence `sure` `[B]` as w (`weight`) or in T (`temperature`)."""
    if adapt == "weight":
        return temperature**2 * (sure * kl(s, t, temperature)).mean()
    own = 1 + (temperature - 1) * sure
    return (own**2 * kl(s, t, own[:, None])).mean()
