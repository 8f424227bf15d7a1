"""What a person reads on the terminal, at 80 columns or more; the same goes into the run's log."""

import io
import logging
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

log = logging.getLogger("kd_lightning")


@rank_zero_only
def say(content: Any) -> None:
    """Prints a line or a rich renderable once, not once a process, and logs it as plain text."""
    Console(highlight=False, soft_wrap=isinstance(content, str)).print(content, markup=False)
    if not any(isinstance(handler, logging.FileHandler) for handler in logging.root.handlers):
        return  # between the jobs of a sweep Hydra's own log is the terminal
    text = io.StringIO()
    Console(file=text, width=100, soft_wrap=isinstance(content, str)).print(content, markup=False)
    log.info(text.getvalue().rstrip())
