"""Learning curves out of the TensorBoard events of runs."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EPOCH = "train/epoch"  # from 0, at every step that is logged with validation


def read_curves(path: Path, tags: Sequence[str]) -> dict[str, dict[int, float]]:
    """Return tag → epoch (from 1) → value, for those `tags` that the run in `path` has logged."""
    if not any(path.glob("events.out.tfevents.*")):
        return {}
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # Hydra would print its every file
    events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 1, "histograms": 1})
    events.Reload()
    there = events.Tags()["scalars"]
    if EPOCH not in there:
        return {}
    epochs = {e.step: int(e.value) + 1 for e in events.Scalars(EPOCH)}
    curves: dict[str, dict[int, float]] = {}
    for tag in tags:
        if tag not in there:
            continue
        curve = curves[tag] = {}
        for event in events.Scalars(tag):
            # training is logged one step before its epoch's validation
            epoch = epochs.get(event.step - tag.startswith("train/"))
            if epoch is not None and (epoch not in curve or tag.startswith("train/")):
                curve[epoch] = event.value  # training: the epoch's last; validation: not that of the final tests
    return curves
