"""Kill trainings at random moments, go on, and compare with the one that was never killed.

`python -m tests.chaos.kills [--kills 30] [--seed 0] [--place DIR]`: every run is killed by SIGKILL at a random moment
between its first line and its end (start, teacher stage, cache, student, checkpoint writes, tests, after the metrics),
then goes on as a user would: `resume=` where the run had begun, else the same command. Several kills may hit one run.
At the end of each: scores, weights and terms equal to the uninterrupted run's to the last bit, files whole, nothing
left half written.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning import runs
from kd_lightning.runs.claims import damage
from tests.chaos.processes import Process

WORDS = (
    "data=digits",
    "data.train_size=320",
    "data.batch_size=32",
    "model.teacher=resnet8",
    "model.student=resnet8",
    "model.teacher_cache=cache",
    "optimizer.lr=0.2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=4",
    "trainer.enable_progress_bar=false",
    "teacher_stage.max_epochs=4",
    "teacher_stage.dir=teachers",
)


class Killed(NamedTuple):
    """One SIGKILL: what the run had reached, and what went wrong afterwards."""

    phase: str
    fault: str


def phase(folder: Path) -> str:
    """Return what a run in `folder` had reached, told by its files."""
    out, teachers = folder / "run", list(folder.glob("teachers/*/config.yaml"))
    if (out / runs.METRICS).exists():
        return "after the metrics"
    if (out / runs.STUDENT).exists():
        return "student written"
    if any(path.name.endswith((".last.ckpt", ".best.ckpt")) for path in folder.rglob(".*")):
        return "during a checkpoint write"
    if (out / runs.LAST).exists():
        return "student training or test"
    if list(folder.glob("teachers/*/metrics.json")):
        return "cache and first epoch"
    if list(folder.glob("teachers/*/last.ckpt")):
        return "teacher training or test"
    return "teacher stage begins" if teachers else "start"


def result(folder: Path) -> Any:
    """Return all of a finished run that must not depend on kills."""
    metrics = runs.read(folder / "run").metrics
    (teacher,) = folder.glob("teachers/*/metrics.json")
    taught = json.loads(teacher.read_text())
    keys = ("student", "train", "sha256", "epochs", "select")
    return {k: metrics[k] for k in keys} | {"teacher": metrics["teacher"]["test"]}, {k: taught[k] for k in keys}


def faults(folder: Path, whole: Any) -> Iterator[str]:
    """Yield what is wrong with a run that was killed and has gone on to its end."""
    found = result(folder)
    for name, a, b in zip(("student", "teacher"), found, whole, strict=True):
        for key in a:
            if a[key] != b[key]:
                yield f"{name}: {key} differs"
    for path in folder.rglob("*.ckpt"):
        if path.name == runs.PREVIOUS:
            yield f"{path} is left over"
        elif problem := damage(path):
            yield f"{path} is damaged: {problem}"
    for path in folder.rglob(".*"):
        if path.suffix[1:].isdigit():  # .last.ckpt.<process>
            yield f"{path} is left over"


def go_on(folder: Path) -> Process:
    """Begin, or go on as a user would."""
    if (folder / "run" / runs.CONFIG).exists():
        return Process(folder, ["resume=run"])
    return Process(folder, [*WORDS, "hydra.run.dir=run"])


def one_run(folder: Path, whole: Any, seconds: float, random_numbers: random.Random, kills: int) -> list[Killed]:
    """Train in `folder`, killed `kills` times or until it is finished; return the kills with their faults."""
    phases = []
    while len(phases) < kills and not runs.is_finished(folder / "run"):
        process = go_on(folder)
        until = time.monotonic() + random_numbers.uniform(0.05, seconds)
        while time.monotonic() < until and not process.is_over():
            time.sleep(0.002)
        if process.is_over():
            process.wait()
            break
        process.kill()
        process.wait()
        phases.append(phase(folder))
    told = ""
    if not runs.is_finished(folder / "run"):
        ended = go_on(folder).wait()
        if ended.status:
            told = f"status {ended.status}: {ended.out[-300:]}"
    told = told or "; ".join(faults(folder, whole))
    return [Killed(reached, told) for reached in phases or ["never killed"] if phases or told]


def main() -> int:
    """Return the exit status: 1 if any run was not as the uninterrupted one."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, default=None, help="another disk, such as /dev/shm")
    args = parser.parse_args()
    random_numbers, killed = random.Random(args.seed), list[Killed]()
    with tempfile.TemporaryDirectory(dir=args.place) as place:
        began = time.monotonic()
        ended = Process(Path(place, "whole"), [*WORDS, "hydra.run.dir=run"]).wait()
        if ended.status:
            print(ended.out)
            return 1
        seconds, whole = time.monotonic() - began, result(Path(place, "whole"))
        while len(killed) < args.kills:
            count = min(random_numbers.choice((1, 1, 2, 3)), args.kills - len(killed))
            folder = Path(tempfile.mkdtemp(dir=place))
            if not (more := one_run(folder, whole, seconds, random_numbers, count)):
                seconds *= 0.8  # the machine is faster than when it was measured
            killed += more
            print(f"{len(killed)} kills, {sum(bool(k.fault) for k in killed)} faults", flush=True)
    for name, count in Counter(k.phase for k in killed).most_common():
        print(f"{count:4}  {name}")
    bad = sorted({k.fault for k in killed if k.fault})
    print(f"{len(killed)} kills (seed {args.seed}), {len(bad)} faults; the uninterrupted run takes {seconds:.1f} s")
    print(*bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
