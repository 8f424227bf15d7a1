"""Budgets: which settings were trained equally long on equal data, so that only their method differs."""

from collections.abc import Mapping, Sequence
from typing import Any

TEACHER = ("model.teacher", "teacher_stage.")  # plain training never reads these
METHOD = ("loss.", *TEACHER)  # may differ from the baseline at equal budget
LENGTH = "trainer.max_epochs"
_EQUAL = 1.02  # ratio of images seen up to which two trainings are equally long


def budgets(settings: Sequence[Mapping[str, Any]], images: Sequence[int | None]) -> list[str]:
    """Return a key for each setting; two are equal if the settings differ in their method alone.

    Length is counted in images seen, as an epoch over few labelled images is shorter than one over all, and in epochs
    where the runs do not tell.

    Args:
        settings: Flat configuration of each setting.
        images: Training samples of all its steps, None if unknown.
    """
    others, lengths = [], []
    for values in settings:
        kept = {k: str(v) for k, v in values.items() if not k.startswith(METHOD)}
        lengths.append(f"{LENGTH}={kept.pop(LENGTH, None)}")
        others.append(str(sorted(kept.items())))
    found: dict[tuple[str, int], str] = {}  # (all but the length, images seen) → key
    by_epochs: dict[tuple[str, str], str] = {}
    for other, length, count in zip(others, lengths, images, strict=True):
        if count:
            alike = (key for (o, n), key in found.items() if o == other and max(n, count) <= _EQUAL * min(n, count))
            found[other, count] = next(alike, f"{other}, {count} images")
            by_epochs.setdefault((other, length), found[other, count])
    return [
        found[other, count] if count else by_epochs.get((other, length), f"{other}, {length}")
        for other, length, count in zip(others, lengths, images, strict=True)
    ]
