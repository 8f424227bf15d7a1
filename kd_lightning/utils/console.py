"""Output for people on the terminal, at 80 columns or more; the same goes into the run's log."""

import io
import logging
from typing import Any

from rich.console import Console

from kd_lightning.utils.distributed import is_first_rank

log = logging.getLogger("kd_lightning")


def say(content: Any) -> None:
    """Print a line or a rich renderable once, not once a process, and log it as plain text."""
    if not is_first_rank():
        return
    Console(highlight=False, soft_wrap=isinstance(content, str)).print(content, markup=False)
    if not any(isinstance(handler, logging.FileHandler) for handler in logging.root.handlers):
        return  # between the jobs of a sweep Hydra's own log is the terminal
    text = io.StringIO()
    Console(file=text, width=100, soft_wrap=isinstance(content, str)).print(content, markup=False)
    log.info(text.getvalue().rstrip())
