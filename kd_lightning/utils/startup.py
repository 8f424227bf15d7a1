"""The start of a command."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch, and what is built on it, without looking for garbage in between.

    The imports make a million objects, nearly all of which stay; looking through them again and again takes a fifth of
    the time. They are not frozen afterwards: extensions would then report them as leaks when the process ends.
    """
    if "torch" in sys.modules:  # imported before: what was made since may well be garbage
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def import_from_here() -> None:
    """Let a console script import a user's modules from the working directory, as `python -m` does."""
    if not os.environ.get("PYTHONSAFEPATH") and not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
