"""Make the faults of docs/reliability.md happen, and check what the command says.

`unshare -rm python -m tests.chaos.faults [PART OF A NAME]`: small disks that are full or read-only are mounted, which
root may do, and `unshare` lets anybody do. Each fault must end with the status and the line that the table gives, with
no traceback and nothing half written; one that is survived, with the scores of a run without it.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kd_lightning import evaluate, runs
from tests.chaos.processes import Process, session
from tests.conftest import TINY

RUN = (*TINY, "model.teacher_cache=cache", "trainer.max_epochs=2", "trainer.keep_epochs=[1]")
PHOTOS = ("data=image_folder", "data.root=photos", "data.image_size=32", "data.num_workers=2", "data.batch_size=4")


class Fault(NamedTuple):
    """One fault: made in a folder with the finished runs `kd` and `ce`, then a command is given."""

    name: str
    make: Callable[[Path], Any]
    words: tuple[str, ...]
    told: str
    """What the line says; empty if the fault is survived."""
    status: int = 2
    verify: bool = False
    """The command is `evaluate --verify`, not `train`."""
    during: Callable[[Path, Process], Any] | None = None
    """Done while the command runs."""


def flip(path: Path) -> None:
    """Change the exponent of a number near the end of a file."""
    data = bytearray(path.read_bytes())
    data[int(0.7 * len(data)) // 4 * 4 + 3] ^= 64
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def teacher(folder: Path) -> Path:
    """Return the run directory of the kept teacher."""
    return next(path.parent for path in folder.glob("outputs/teachers/*/config.yaml"))


def unfinished(change: Callable[[Path], None], has_previous: bool) -> Callable[[Path], None]:
    """Return what turns `ce` into a run that was stopped, with a changed last checkpoint."""

    def make(folder: Path) -> None:
        (folder / "ce" / runs.METRICS).unlink()
        if has_previous:
            shutil.copy(folder / "ce" / "epoch=1.ckpt", folder / "ce" / runs.PREVIOUS)
        change(folder / "ce" / runs.LAST)

    return make


def mount(folder: Path, kilobytes: int) -> Path:
    """Return a small disk in memory, `folder`/disk."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)], check=True)
    return disk


def read_only(folder: Path) -> None:
    """Mount a disk that cannot be written."""
    subprocess.run(["mount", "-o", "remount,ro", str(mount(folder, 64))], check=True)


def fill(folder: Path, process: Process) -> None:
    """Fill the disk but for 60 kB, as soon as the table of the cache is there."""
    while not process.is_over() and not list(folder.glob("disk/*/*.bin")):
        time.sleep(0.001)
    with suppress(OSError):
        (folder / "disk" / "other").write_bytes(bytes(1000 * 240))


def kill_reader(folder: Path, process: Process) -> None:
    """Kill a process that reads photos for training, the first one, once the training has begun."""
    while not process.is_over():
        time.sleep(0.05)
        others = [pid for pid in session(process.pid) if pid != process.pid]
        if others and (folder / "new" / runs.LAST).exists():
            os.kill(others[0], signal.SIGKILL)
            return


def photos(folder: Path) -> None:
    """Make two classes of small photos."""
    for n in range(48):
        path = folder / "photos" / ("train" if n < 32 else "val") / f"c{n % 2}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 5 * n, np.uint8)).save(path)


def cifar(folder: Path) -> None:
    """Make the files of CIFAR-10 with other content."""
    (folder / "data/cifar-10-batches-py").mkdir(parents=True, exist_ok=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / "data/cifar-10-batches-py" / name).write_bytes(b"damaged")


def nothing(folder: Path) -> None:
    """Change nothing before the command."""


KD, CE = ("hydra.run.dir=new",), ("loss=ce", "hydra.run.dir=new")
HUGE = ("model.student=wrn_40_2", "data.train_size=1200", "data.batch_size=1200")
FAULTS = (
    Fault("disk full: run directory", lambda f: mount(f, 700), ("loss=ce", "hydra.run.dir=disk/r"), "No space left"),
    Fault("disk full: teacher", lambda f: mount(f, 700), (*KD, "teacher_stage.dir=disk"), "No space left"),
    Fault(
        "disk full: cache",
        lambda f: mount(f, 300),
        (*KD, "model.teacher_cache=disk"),
        "views.bin: No space left",
        during=fill,
    ),
    Fault("read-only: run directory", read_only, ("loss=ce", "hydra.run.dir=disk/r"), "choose another hydra.run.dir"),
    Fault("read-only: teacher", read_only, (*KD, "teacher_stage.dir=disk"), "teacher_stage.dir: cannot write"),
    Fault("read-only: cache", read_only, (*KD, "model.teacher_cache=disk/c"), "model.teacher_cache=disk/c: "),
    Fault("last.ckpt with a flipped bit", unfinished(flip, True), ("resume=ce",), "", 0),
    Fault("last.ckpt cut", unfinished(cut, True), ("resume=ce",), "", 0),
    Fault("last.ckpt cut, no previous one", unfinished(cut, False), ("resume=ce",), "last.ckpt is damaged"),
    Fault("best.ckpt with a flipped bit", lambda f: flip(f / "ce/best.ckpt"), ("ce",), "best.ckpt is damaged", 2, True),
    Fault("student with a flipped bit", lambda f: flip(f / "ce" / runs.STUDENT), ("ce",), "is damaged", 2, True),
    Fault("teacher with a flipped bit", lambda f: flip(teacher(f) / runs.STUDENT), KD, f"{runs.STUDENT} is damaged"),
    Fault("teacher cut", lambda f: cut(teacher(f) / runs.STUDENT), KD, f"{runs.STUDENT} is damaged"),
    Fault("teacher's file gone, cache complete", lambda f: (teacher(f) / runs.STUDENT).unlink(), KD, "delete it and"),
    Fault("config.yaml cut", lambda f: cut(f / "ce" / runs.CONFIG), ("resume=ce",), "config.yaml is damaged"),
    Fault("metrics.json cut", lambda f: cut(f / "ce" / runs.METRICS), ("ce",), "metrics.json is damaged", 2, True),
    Fault("cache with flipped bits", lambda f: [flip(p) for p in f.glob("cache/*/*.bin")], KD, "", 0),
    Fault("cache cut", lambda f: [cut(p) for p in f.glob("cache/*/*.bin")], KD, "", 0),
    Fault("data with a wrong MD5", cifar, ("data=cifar10", *CE), "data_batch_1"),
    Fault(
        "a process that reads photos is killed",
        photos,
        (*PHOTOS, *CE, "trainer.max_epochs=200"),
        "a process that reads samples is gone",
        1,
        during=kill_reader,
    ),
    Fault("out of memory", nothing, (*CE, *HUGE), "out of memory with data.batch_size=1200"),
)


@contextmanager
def little_memory(is_little: bool) -> Iterator[None]:
    """Leave what is started inside 400 MB of address space more than this process has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if is_little:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 400 * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def attempt(fault: Fault, base: Path, folder: Path, expected: Any) -> str:
    """Make the fault in a copy of `base`; return what is wrong, or an empty string, after printing the line."""
    shutil.copytree(base, folder)
    fault.make(folder)
    words = [*RUN, *fault.words]
    if fault.verify:
        words = ["--verify", *fault.words]
    elif fault.words[0].startswith("resume="):
        words = list(fault.words)
    elif fault.words[0].startswith("data="):
        words = [word for word in words if word not in ("data=digits", "data.train_size=320")]
    try:
        with little_memory(fault.name == "out of memory"):
            process = Process(folder, words, evaluate.main if fault.verify else None)
        if fault.during is not None:
            threading.Thread(target=fault.during, args=(folder, process)).start()
        ended = process.wait()
    finally:
        if (folder / "disk").is_dir():
            subprocess.run(["umount", str(folder / "disk")], check=True)
    line = next((text for text in reversed(ended.out.splitlines()) if text.startswith("error: ")), "")
    print(f"{fault.name}: status {ended.status} {line}", flush=True)
    if ended.status != fault.status or fault.told not in line or "Traceback" in ended.out:
        return f"{fault.name}: {ended.out[-2000:]}"
    out = folder / ("ce" if fault.words == ("resume=ce",) else "new")
    if not fault.told and runs.read(out).metrics["student"] != expected[out.name]:
        return f"{fault.name}: other scores"
    half = [path.name for path in folder.rglob(".*") if path.name.split(".")[1].isdigit()]
    return f"{fault.name}: left over: {half}" if half else ""


def main() -> int:
    """Return the exit status: 1 if a fault ended otherwise than the table says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.faults", description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", default="", help="part of the name of a fault")
    name = parser.parse_args().name
    with tempfile.TemporaryDirectory() as place:
        base, wrong = Path(place, "base"), list[str]()
        for words in (("hydra.run.dir=kd",), ("loss=ce", "hydra.run.dir=ce")):
            if (ended := Process(base, [*RUN, *words]).wait()).status:
                print(ended.out)
                return 1
        expected = {"ce": runs.read(base / "ce").metrics["student"], "new": runs.read(base / "kd").metrics["student"]}
        for number, fault in enumerate(FAULTS):
            if name in fault.name:
                wrong.append(attempt(fault, base, Path(place, str(number)), expected))
    print(*filter(None, wrong), sep="\n")
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
