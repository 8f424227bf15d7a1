"""Values of a loss that may change while it trains: `4.0`, or `{schedule: linear, start: 0, end: 1, epochs: 20}`."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from kd_lightning.utils.checks import UserError, choice, did_you_mean, number

SHAPES = ("linear", "cosine", "step")


class Schedule(nn.Module):
    """A number, or one that goes from `start` to `end` in the first `epochs` and stays there; call it for its value.

    `linear` changes evenly; `cosine` is half a cosine, so slow at both ends; `step` is `start` before and `end` from
    there on. It is a module so that its method finds it and can set its `epoch` (`Method.set_epoch`).

    Args:
        key: Name of the value as the user typed it, for messages.
        value: The number, or a mapping with `schedule`, `start`, `end` and `epochs`.
        bounds: As in `checks.number`.

    Raises:
        UserError: For any other value.
    """

    def __init__(self, key: str, value: Any, **bounds: float):
        super().__init__()
        self.epoch = 0.0
        if not isinstance(value, Mapping):
            self.schedule, self.epochs = "linear", 0.0
            self.start = self.end = number(key, value, **bounds)
            return
        wanted = ("schedule", "start", "end", "epochs")
        for name in value:
            if name not in wanted:
                raise UserError(f"{key} has no {name!r}{did_you_mean(name, wanted)}; it takes {', '.join(wanted)}")
        for name in wanted:
            if name not in value:
                raise UserError(
                    f"{key} lacks {name!r}; a schedule is {{schedule: linear, start: 0, end: 1, epochs: 20}}"
                )
        self.schedule = choice(f"{key}.schedule", value["schedule"], SHAPES)
        self.start = number(f"{key}.start", value["start"], **bounds)
        self.end = number(f"{key}.end", value["end"], **bounds)
        self.epochs = number(f"{key}.epochs", value["epochs"], gt=0)

    @property
    def largest(self) -> float:
        """Largest value it will ever have."""
        return max(self.start, self.end)

    def forward(self) -> float:
        """Return the value at `epoch`, the number of epochs trained so far, with its fraction."""
        if self.epoch >= self.epochs:
            return self.end
        if self.schedule == "step":
            return self.start
        done = self.epoch / self.epochs
        if self.schedule == "cosine":
            done = 0.5 - 0.5 * math.cos(math.pi * done)
        return self.start + (self.end - self.start) * done

    def extra_repr(self) -> str:
        return f"{self.start}" if self.epochs == 0 else f"{self.schedule} {self.start} → {self.end} in {self.epochs}"


def flag(key: str, value: Any) -> bool:
    """Return `value` if it is true or false. Raises UserError."""
    return bool(choice(key, value, (True, False)))
