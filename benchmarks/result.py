"""The result of a benchmark row."""

from dataclasses import dataclass

from benchmarks.timing import Ratio


@dataclass(frozen=True)
class Result:
    """A measured `value` beside what was aimed at: a ratio, unless `unit` says otherwise."""

    name: str
    value: float
    target: str
    met: bool | None
    """None where the target is for another machine."""
    note: str
    unit: str = "×"
    robust: bool = False
    """True if it also holds on a busy machine, so that CI may fail on it."""
    quartiles: tuple[float, float] | None = None
    minimum: float | None = None
    """See `Ratio`, for two sides that ran in turns."""

    @classmethod
    def of(cls, name: str, ratio: Ratio, target: str, met: bool | None, note: str, robust: bool = False) -> "Result":
        """Return the result of two sides that ran in turns."""
        return cls(name, ratio.median, target, met, note, "×", robust, ratio.quartiles, ratio.minimum)
