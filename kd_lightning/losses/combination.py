"""Several methods at once."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError


class Combination(Method):
    """`Σ alpha_m · method_m`, each method with its own alpha; the labels count once, by the `ce_weight` given here.

    >>> Combination(kd=KD(temperature=4, alpha=0.9), attention=Attention(alpha=1000), ce_weight=0.1)

    Args:
        methods: Methods by name.

    Raises:
        UserError: If there is no method, or what is named is none.

    Matches: what its methods match
    Formula: `Σ alpha_m · method_m`
    Paper: –
    """

    def __init__(self, *, alpha: Any = 1.0, ce_weight: Any = 1.0, **methods: Method):
        super().__init__(alpha, ce_weight)
        if not methods:
            raise UserError("loss: a combination must name at least one method, as kd: {_target_: …}")
        for name, method in methods.items():
            if not isinstance(method, Method):
                raise UserError(f"loss.{name} must be a distillation method with a _target_, got {method!r}")
            if type(method).peers is not Method.peers:
                raise UserError(f"loss.{name}: {type(method).__name__} trains several students and cannot be combined")
        self.methods = nn.ModuleDict(methods)
        self.needs_teacher = any(method.needs_teacher for method in self._each().values())
        self.least_batch = max(method.least_batch for method in self._each().values())

    def _each(self) -> dict[str, Method]:
        return dict(self.methods.items())  # type: ignore[arg-type]  # a ModuleDict forgets the class

    def prepare(self, networks: Networks) -> None:
        for name, method in self._each().items():
            if type(method).wrap_student is not Method.wrap_student:
                raise UserError(f"loss.{name}: {type(method).__name__} changes the student and cannot be combined")
            method.prepare(networks)

    def combine(self, ask: Callable[[Method], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return each method's weighted value by name; `ask(method)` returns the parts of one method."""
        return {name: method.alpha() * sum(ask(method).values()) for name, method in self._each().items()}

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        def ask(method: Method) -> Mapping[str, Tensor]:
            value = method(student, teacher, batch)
            return value if isinstance(value, Mapping) else {"value": value}

        return self.combine(ask)
