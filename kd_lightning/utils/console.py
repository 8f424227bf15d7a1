"""Output for people on the terminal, at 80 columns or more; the same goes into the run's log."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from kd_lightning.utils.distributed import is_first_rank

log = logging.getLogger("kd_lightning")


_brief = [False]


@contextmanager
def brief(yes: bool = True) -> Iterator[None]:
    """Keep details off the terminal inside, as in the runs of a sweep; the logs have them."""
    before, _brief[0] = _brief[0], yes
    try:
        yield
    finally:
        _brief[0] = before


_details: list[set[Any]] = []


@contextmanager
def details_once() -> Iterator[None]:
    """Print equal details once inside: a command may read its data for the teacher and again for the student."""
    _details.append(set())
    try:
        yield
    finally:
        _details.pop()


def is_brief() -> bool:
    """Return whether details are only logged here."""
    return _brief[0]


def is_watched() -> bool:
    """Return whether a person may look at what moves: not so in a file, a pipe or the log of a queue."""
    console = Console()
    return console.is_terminal or console.is_jupyter


_bars: list[Console] = []


@contextmanager
def above(bar: Console) -> Iterator[None]:
    """Print lines above the progress bar that moves on this console, not into it."""
    _bars.append(bar)
    try:
        yield
    finally:
        _bars.remove(bar)


@contextmanager
def never_fatal(what: str) -> Iterator[None]:
    """Tell an error inside in one line that begins with `what`: for pictures, which never decide a status."""
    try:
        yield
    except Exception as e:
        say(f"{what}: {type(e).__name__}: {(str(e).strip().splitlines() or [''])[0][:120]}")


def _is_news(detail: Any) -> bool:
    """Return whether a detail belongs on the terminal, here and now."""
    if _brief[0] or any(detail in told for told in _details):
        return False
    for told in _details:
        told.add(detail)
    return True


def say(content: Any, detail: bool = False) -> None:
    """Print a line or a rich renderable once, not once a process, and log it as plain text.

    Args:
        content: The line.
        detail: Inside `brief`, and inside `details_once` the second time, log it only.
    """
    if not is_first_rank():
        return
    if isinstance(content, str):  # a file's name may be no UTF-8
        content = content.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if not detail or _is_news(content):  # no markup: a name such as `run [1]` is itself, also inside a table
        if _bars and isinstance(content, str):
            _bars[-1].print(content, highlight=False, markup=False, soft_wrap=True)
        else:
            Console(highlight=False, markup=False, soft_wrap=isinstance(content, str)).print(content)
    if not any(isinstance(handler, logging.FileHandler) for handler in logging.root.handlers):
        return  # between the jobs of a sweep Hydra's own log is the terminal
    text = io.StringIO()
    Console(file=text, width=100, markup=False, soft_wrap=isinstance(content, str)).print(content)
    log.info(text.getvalue().rstrip())
