"""Several methods at once."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from kd_lightning.losses.schedule import Setting
from kd_lightning.models.probe import Networks
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError, did_you_mean


class Combination(nn.Module):
    """`Σ weights[name] · method(name)` of methods by name; a weight >= 0 may be a schedule.

    >>> Combination(weights={"kd": 0.9, "attention": 1000}, kd=KD(temperature=4), attention=Attention())

    Raises UserError if a method lacks its weight or a weight its method.
    """

    def __init__(self, weights: Mapping[str, Any], **methods: Callable[..., Any]):
        super().__init__()
        if not isinstance(weights, Mapping):
            raise UserError(f"loss.weights must give each method its weight, as {{kd: 0.9, dist: 1}}, got {weights!r}")
        for name in (*weights, *methods):
            if name not in weights or name not in methods:
                lacks, others = ("weight", weights) if name in methods else ("method", methods)
                raise UserError(f"loss.weights: {name!r} has no {lacks}{did_you_mean(name, others)}")
        if not methods:
            raise UserError("loss.weights must name at least one method, got {}")
        self.weights = nn.ModuleDict({k: Setting(f"loss.weights.{k}", v, least=0) for k, v in weights.items()})
        self.methods = dict(methods)
        self.trained = nn.ModuleDict({k: m for k, m in methods.items() if isinstance(m, nn.Module)})
        self.needs_teacher = any(getattr(m, "needs_teacher", True) for m in methods.values())

    def prepare(self, networks: Networks) -> None:
        for name, method in self.methods.items():
            if hasattr(method, "deployed"):
                raise UserError(f"loss.{name}: {type(method).__name__} changes the student and cannot be combined")
            if hasattr(method, "prepare"):
                method.prepare(networks)

    def forward(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, ask: Callable[..., Any] | None = None
    ) -> dict[str, Tensor]:
        """Each method's value times its weight. `ask(method, student, teacher, batch)` may call the methods, for
        several teachers to be fused at the temperature of each."""
        parts = {}
        for name, method in self.methods.items():
            value = ask(method, student, teacher, batch) if ask else method(student, teacher, batch)
            value = sum(value.values()) if isinstance(value, Mapping) else value
            parts[name] = self.weights[name]() * value
        return parts
