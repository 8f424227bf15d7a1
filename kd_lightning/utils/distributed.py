"""Several processes on one machine: Lightning starts the other ranks by repeating the command that was typed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import open_dict, read_write

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # in the order in which Lightning asks for them
# What Lightning sets in the first process when it starts the others.
_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_first_rank() -> bool:
    """Return whether this process is the one that writes files and speaks."""
    rank = getattr(rank_zero_only, "rank", None)  # set by Lightning, once it is imported
    if rank is None:
        rank = next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0)
    return rank == 0


@contextmanager
def repeat_this_job_only(out: Path) -> Iterator[None]:
    """In a sweep, make the command that Lightning repeats this one job in its folder `out`, not the whole sweep.

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
        import torch  # which takes seconds, and was imported in between

        if not launched_by_other and "LOCAL_RANK" in os.environ:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for name in _VARIABLES:
                os.environ.pop(name, None)
