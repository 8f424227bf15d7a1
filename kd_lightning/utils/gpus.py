"""One GPU for each run: a sweep whose runs go on side by side uses all GPUs of the machine."""

import getpass
import itertools
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

_own: list[tuple[int, FileLock]] = []  # the system gives the lock up when this process ends, however it does


def own_gpu(count: int) -> int:
    """Return the number, in [0, count), of a GPU for this process alone, the same at every call.

    The first free place is taken, in rounds over the GPUs: runs of this user share one where there are more than GPUs.
    """
    if not _own and count:
        for place in itertools.count():
            number, sharing = place % count, place // count
            lock = FileLock(_folder() / f"{_name(number)}{f'-{sharing}' * bool(sharing)}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            _own.append((number, lock))
            break
    return _own[0][0] if _own else 0


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"kd_lightning-gpus-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    return folder


def _name(number: int) -> str:
    """Return a name that means the same GPU in processes that see others of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible[number].strip() if number < len(visible) and visible[number].strip() else str(number)
