"""Run directories: what a finished training leaves, under names that only this package knows."""

import kd_lightning.runs.pretrained
from kd_lightning.runs.directory import (
    BEST,
    CONFIG,
    EPOCH,
    EVALUATION,
    LAST,
    METRICS,
    NONFINITE,
    PREVIOUS,
    SCHEMA,
    STUDENT,
    Run,
    below,
    diverged,
    find,
    go_on,
    is_finished,
    kept_checkpoints,
    read,
    read_config,
    read_evaluation,
    write_config,
    write_diverged,
    write_evaluation,
    write_metrics,
)
from kd_lightning.runs.keys import INCIDENTAL, flatten
