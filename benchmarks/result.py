"""What a row says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A measured `value` (a ratio unless `unit` says otherwise) beside what was aimed at."""

    name: str
    value: float
    target: str
    met: bool | None
    """None where the target is for another machine."""
    note: str
    unit: str = "×"
    robust: bool = True
    """Whether it also holds on a busy machine, so that CI may fail on it."""
