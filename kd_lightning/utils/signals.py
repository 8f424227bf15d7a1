"""What asks a program to end: SIGTERM of a queue or `kill`, SIGINT of Ctrl-C, `| head` that has read enough."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

PATIENCE = 3.0
"""Seconds in which repeated signals are one: queues send SIGINT and SIGTERM together, launchers pass both on."""


class Stopped(SystemExit):
    """The end that a signal asked for. Its code is 128 + the signal's number, as a shell tells it."""


_asked = 0
"""Number of the signal that asked for the end of what is `stoppable`, until it has ended."""


def stop(signum: int, frame: Any = None) -> NoReturn:
    """Raise `Stopped`; a handler of signals."""
    raise Stopped(128 + signum)


def stop_if_asked() -> None:
    """Raise `Stopped` once more if a signal asked for the end.

    Python drops what a signal handler raises during a finalizer or a callback of C code: the program would go on.
    """
    if _asked:
        stop(_asked)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into `Stopped`, raised where the program is, so that it leaves things in order.

    A second signal, later than `PATIENCE`, ends the process at once. One during an import waits for its end, at most so
    long: C++ code of libraries aborts if an exception comes out of a module that it imports. A signal that is ignored
    already stays so, as `nohup` wants it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, first = os.getpid(), 0.0

    def handle(signum: int, frame: Any) -> None:
        nonlocal first
        global _asked
        is_late = first and time.monotonic() - first > PATIENCE
        if os.getpid() != process or is_late:  # another process is a worker that reads images
            os._exit(128 + signum)
        if not first:
            first, _asked = time.monotonic(), signum
            end(signum, frame)

    def end(signum: int, frame: Any) -> None:
        if not _is_importing(frame):
            stop_if_asked()
        elif _asked and time.monotonic() - first > PATIENCE:
            os._exit(128 + _asked)
        elif _asked:
            signal.setitimer(signal.ITIMER_REAL, 0.02)  # look again

    def quietly(told: Callable[..., None]) -> Callable[..., None]:
        """Return a hook that prints no traceback of finalizers and of readers of images once the end was asked for."""

        def hook(*error: Any) -> None:
            if not _asked and os.getpid() == process:
                told(*error)

        return hook

    def unraisable(error: Any) -> None:
        """Print no traceback where a reader of images is lost that was about to end anyway: all has been read."""
        if "DataLoader worker" not in str(error.exc_value):
            quietly(hooks[0])(error)

    global _asked
    hooks = sys.unraisablehook, sys.excepthook
    sys.unraisablehook, sys.excepthook = unraisable, quietly(hooks[1])
    signals = [s for s in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, handle) for s in signals} | {signal.SIGALRM: signal.signal(signal.SIGALRM, end)}
    try:
        yield
        stop_if_asked()  # a library swallowed it, and all was done all the same
    except Exception:
        stop_if_asked()  # a library turned it into an error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s, handler in before.items():
            signal.signal(s, handler)
        sys.unraisablehook, sys.excepthook = hooks
        _asked = 0


@contextmanager
def piped() -> Iterator[None]:
    """End with status 141 and no further word where the program that reads our output has ended, as `head` does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at its end
        sys.exit(128 + signal.SIGPIPE)


def _is_importing(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
