"""Kill trainings at random moments, go on, and compare with those that were never killed.

`python -m tests.chaos.kills [--jobs one|two|four] [--kills 30] [--seed 0] [--place DIR]`: SIGKILL hits a training at a
random moment between its first line and its end (start, teacher stage, cache, student, checkpoint writes, tests, after
the metrics); then it goes on as a user would: `resume=` where the run had begun, else the same command. Several kills
may hit one run. `two` trains in two processes and kills either; `four` trains four seeds at once, which share teacher
and cache, and kills one of them at a time.

At the end: every run finished with scores, weights and terms equal to the uninterrupted one's to the last bit, no run
ended by the kill of another, files whole, no file half written and no process left over.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
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


class Job(NamedTuple):
    """One training: the name of its run directory, and what it adds to `WORDS`."""

    out: str
    words: tuple[str, ...] = ()


JOBS = {
    "one": (Job("run"),),
    "two": (Job("run", ("trainer.devices=2",)),),
    "four": tuple(Job(f"run{seed}", (f"seed={seed}",)) for seed in range(4)),
}


class Killed(NamedTuple):
    """One SIGKILL: what the run had reached, and what went wrong afterwards."""

    phase: str
    fault: str


def phase(folder: Path, job: Job) -> str:
    """Return what a run had reached, told by its files."""
    out, teachers = folder / job.out, list(folder.glob("teachers/*/config.yaml"))
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


def result(folder: Path, job: Job) -> dict[str, Any]:
    """Return all of a finished run and its teacher that must not depend on kills."""
    metrics = runs.read(folder / job.out).metrics
    (teacher,) = folder.glob("teachers/*/metrics.json")
    taught = json.loads(teacher.read_text())
    keys = ("student", "train", "sha256", "epochs", "select")
    return (
        {key: metrics[key] for key in keys}
        | {"teacher's test": metrics["teacher"]["test"]}
        | {f"teacher's {key}": taught[key] for key in keys}
    )


def faults(folder: Path, job: Job, whole: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a run that was killed and has gone on to its end."""
    found = result(folder, job)
    yield from (f"{job.out}: {key} differs" for key in whole if found[key] != whole[key])
    for path in folder.rglob("*.ckpt"):
        if path.name == runs.PREVIOUS:
            yield f"{path.name} is left over"
        elif problem := damage(path):
            yield f"{path.name} is damaged: {problem}"
    for path in folder.rglob(".*"):
        if path.suffix[1:].isdigit() or path.name.split(".")[1].isdigit():  # .<process>.last.ckpt
            yield f"{path.name} is left over"


def go_on(folder: Path, job: Job) -> Process:
    """Begin, or go on as a user would."""
    if (folder / job.out / runs.CONFIG).exists():
        return Process(folder, [f"resume={job.out}"])
    return Process(folder, [*WORDS, *job.words, f"hydra.run.dir={job.out}"])


def trial(
    folder: Path,
    jobs: Sequence[Job],
    wholes: Sequence[dict[str, Any]],
    seconds: float,
    random_numbers: random.Random,
    kills: int,
) -> list[Killed]:
    """Train `jobs` at once in `folder`, hit by `kills` kills or until they are finished; return the kills."""
    running: dict[Job, Process] = {}
    started: list[Process] = []
    hit: set[Process] = set()
    phases, told = list[str](), list[str]()

    def begin() -> None:
        for job in jobs:
            if job in running and running[job].is_over():
                ended = running[job].wait()
                if ended.status and running[job] not in hit:
                    told.append(f"{job.out} ended with status {ended.status}: {ended.out[-300:]}")
                del running[job]
            if job not in running and not runs.is_finished(folder / job.out) and not told:
                running[job] = go_on(folder, job)
                started.append(running[job])

    while len(phases) < kills and not told:
        begin()
        until = time.monotonic() + random_numbers.uniform(0.05, seconds)
        while time.monotonic() < until and not all(process.is_over() for process in running.values()):
            time.sleep(0.002)
        alive = [job for job, process in running.items() if not process.is_over()]
        if not alive:
            break
        job = random_numbers.choice(alive)
        hit.add(running[job])
        running[job].kill_one(random_numbers)
        phases.append(phase(folder, job))
        if len(jobs) == 1:
            running[job].wait()
    while running and not told:  # to the end
        begin()
        time.sleep(0.02)
    for process in started:
        if left := process.left():
            told.append(f"{len(left)} processes are left over")
    if not told:
        told = [fault for job, whole in zip(jobs, wholes, strict=True) for fault in faults(folder, job, whole)]
    return [Killed(reached, "; ".join(told)) for reached in phases or ["never killed"] if phases or told]


def main() -> int:
    """Return the exit status: 1 if any run was not as the uninterrupted one."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", choices=JOBS, default="one")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, default=None, help="another disk, such as /dev/shm")
    args = parser.parse_args()
    jobs, random_numbers, killed = JOBS[args.jobs], random.Random(args.seed), list[Killed]()
    with tempfile.TemporaryDirectory(dir=args.place) as place:
        whole, began = Path(place, "whole"), time.monotonic()
        for job in jobs:
            ended = go_on(whole, job).wait()
            if ended.status:
                print(ended.out)
                return 1
        seconds, wholes = time.monotonic() - began, [result(whole, job) for job in jobs]
        while len(killed) < args.kills:
            count = min(len(jobs) * random_numbers.choice((1, 1, 2, 3)), args.kills - len(killed))
            folder = Path(tempfile.mkdtemp(dir=place))
            if not (more := trial(folder, jobs, wholes, seconds, random_numbers, count)):
                seconds *= 0.8  # the machine is faster than when it was measured
            killed += more
            print(f"{len(killed)} kills, {sum(bool(k.fault) for k in killed)} faults", flush=True)
    for name, count in Counter(k.phase for k in killed).most_common():
        print(f"{count:4}  {name}")
    bad = sorted({k.fault for k in killed if k.fault})
    told = f"{args.jobs} at once, seed {args.seed}, in {args.place or tempfile.gettempdir()}"
    print(f"{len(killed)} kills ({told}), {len(bad)} faults; uninterrupted {seconds:.1f} s")
    print(*bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
