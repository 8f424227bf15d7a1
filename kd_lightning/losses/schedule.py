"""Values of a loss that may change while it trains: `4.0`, or `{schedule: linear, start: 0, end: 1, epochs: 20}`."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from kd_lightning.utils.checks import UserError, choice, did_you_mean, number

SHAPES = ("linear", "cosine", "step")


class Schedule(nn.Module):
    """A number, or one that goes from `start` to `end` in the first `epochs` and stays there; call it for its value.

    `linear`: evenly; `cosine`: half a cosine, so slow at both ends; `step`: `start` before, `end` from there on. `key`
    is what the user typed, for messages; `bounds` are those of `checks.number`. Raises UserError for anything else.

    As a submodule it is found by the loss that it belongs to, which tells it the time (`set_epoch`).
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
        """The largest value it will ever have."""
        return max(self.start, self.end)

    def forward(self) -> float:
        """The value at `epoch`, the epochs trained so far as a fraction."""
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
    """Returns `value` if it is true or false. Raises UserError."""
    return bool(choice(key, value, (True, False)))
