"""Several processes on one machine: Lightning starts the other ranks by repeating the command that was typed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import open_dict, read_write

# What Lightning sets in the first process when it starts the others.
_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_first_rank() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def repeat_this_job_only(out: Path) -> Iterator[None]:
    """In a sweep, makes the repeated command this one job in its own folder `out`, not the whole sweep again.

    Afterwards the process forgets the ranks it started, so that the next job starts its own.
    """
    config: Any = HydraConfig.get()
    argv, launched_by_other = sys.argv, "LOCAL_RANK" in os.environ
    flags = [a for a in argv[1:] if "=" not in a or a.startswith(("-", "hydra"))]  # and the words that belong to them
    flags = [a for a in flags if a not in ("-m", "--multirun") and not a.startswith("~")]  # which deletes a key
    sys.argv = [argv[0], *flags, *config.overrides.task, "hydra.mode=RUN"]
    with read_write(config), open_dict(config):
        config.run.dir = str(out)
    try:
        yield
    finally:
        sys.argv = argv
        if not launched_by_other and "LOCAL_RANK" in os.environ:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for name in _VARIABLES:
                os.environ.pop(name, None)
