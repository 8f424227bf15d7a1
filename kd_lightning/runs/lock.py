"""One process at a time in a run directory."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kd_lightning.utils.checks import UserError
from kd_lightning.utils.distributed import is_first_rank

LOCK = ".kd_lightning.lock"  # gone when the run is over; one that a killed process left behind is free


class Busy(UserError):
    """Another process trains the run."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keeps other processes from the run directory `path`, which exists; the operating system frees it after a crash.

    Raises Busy if another process is in it, UserError if it cannot be written.
    """
    if not is_first_rank():  # the first rank holds it for all
        yield
        return
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as e:
        raise Busy(f"{path} is being trained by another process") from e
    except OSError as e:
        raise UserError(f"cannot write to the output folder {path}: {e.strerror}; choose another hydra.run.dir") from e
    try:
        yield
    finally:
        with suppress(OSError):  # before the release: a file that another process has locked would be unlinked after it
            (path / LOCK).unlink()
        lock.release()
