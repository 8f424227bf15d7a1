"""Prove that sweeps run on clusters: `python -m tests.clusters slurm`, `python -m tests.clusters ray`.

`slurm` starts a real SLURM on the loopback interface (Debian: `apt-get install slurm-wlm munge`; needs root and the
extra `slurm`), `ray` a local Ray cluster (extra `ray`). Each check is a line; the exit status is 0 if all hold.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kd_lightning import runs
from tests.clusters.slurm import CPUS, Slurm
from tests.conftest import TINY, environment

ROOT = Path(__file__).parents[2]
TRAIN = (sys.executable, "-m", "kd_lightning.train")
LONG = (*TRAIN, "-m", *TINY, "loss=ce", "trainer.max_epochs=80", "seed=0,1")
SHARING = (*TRAIN, "-m", *TINY, "loss.temperature=1,2,4,8")
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=low")


def check(what: str, holds: bool) -> None:
    """Print a line; end the program if it does not hold."""
    print(f"{'yes' if holds else 'NO '}  {what}", flush=True)
    if not holds:
        raise SystemExit(1)


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 900) -> None:
    """Wait until `ready`. Ends the program after so many seconds."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            check(what, False)
        time.sleep(0.5)


def check_shared(folder: Path) -> None:
    """Check four runs that needed one teacher."""
    found = runs.find(folder / "sweep")
    check("4 runs at once have finished", len(found) == 4 and (folder / "sweep" / "comparison.html").is_file())
    teachers = runs.find(folder / "outputs" / "teachers")
    check("they shared one teacher stage", len(teachers) == 1 and teachers[0].metrics["parts"] == 1)
    tables = list((folder / "outputs" / "teacher_cache").rglob("*.bin"))
    check("they shared one cache of the teacher's answers", len(tables) == 1)


def sharing(cluster: Slurm, folder: Path) -> None:
    """An array of four jobs at once that need the same teacher."""
    done = cluster.call(*SHARING, *SLURM, "hydra.launcher.cpus_per_task=1", "hydra.sweep.dir=sweep", cwd=folder)
    check("the sweep was one job array", len({p.name.partition("_")[0] for p in _jobs(folder)}) == 1)
    check("the command waited for its jobs and compared them", "finished runs in" in done.stdout)
    check_shared(folder)


def preempted(cluster: Slurm, folder: Path) -> None:
    """Two jobs that one of a higher partition drives out, and that go on."""
    words = (*LONG, *SLURM, f"hydra.launcher.cpus_per_task={CPUS // 2}", "hydra.sweep.dir=sweep")
    sweep = subprocess.Popen(
        words, cwd=folder, env=cluster.environ, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    last = [folder / "sweep" / name / runs.LAST for name in ("0_seed0", "1_seed1")]
    wait_for(lambda: all(path.exists() for path in last), "both jobs began")
    cluster.call("sbatch", "-p", "high", f"-n{CPUS}", "-o", "/dev/null", "--wrap", "sleep 1")
    wait_for(lambda: sweep.poll() is not None, "the sweep ended")
    check("a job of a higher partition drove both out; they were queued again", all(map(_was_preempted, _jobs(folder))))
    check("the sweep ended with status 0", sweep.returncode == 0)
    _check_gone_on(folder, parts=2)


def epochs(folder: Path, seconds: float = 200) -> str:
    """Return the word for as many epochs as take longer than a time limit of three minutes leaves to train."""
    subprocess.run((*TRAIN, *TINY, "loss=ce", "trainer.max_epochs=20", "hydra.run.dir=timed"), cwd=folder,
                   env=environment(), check=True, capture_output=True)  # fmt: skip
    return f"trainer.max_epochs={round(20 * seconds / runs.read(folder / 'timed').metrics['seconds'])}"


def timed_out(cluster: Slurm, folder: Path) -> None:
    """Two jobs that reach their time limit, are put back into the queue by submitit, and go on."""
    words = (*LONG, *SLURM, "hydra.launcher.cpus_per_task=2", "hydra.sweep.dir=sweep", epochs(folder))
    words = (*words, "hydra.launcher.timeout_min=3", "hydra.launcher.signal_delay_s=30")
    done = cluster.call(*words, cwd=folder)
    check("the sweep ended with status 0", done.returncode == 0)
    check("its jobs were put back at their time limit", all("Requeued job" in _log(job) for job in _jobs(folder)))
    check("they went on", all(run.metrics["parts"] > 1 for run in runs.find(folder / "sweep")))


def script(cluster: Slurm, folder: Path) -> None:
    """The script for sbatch in docs/scale.md, with a time limit of three minutes.

    SLURM looks at time limits every 30 seconds, and sends a signal up to so much earlier.
    """
    text = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)[0]
    text = text.replace("4:00:00 --signal=TERM@120", "3 --signal=TERM@30").replace("python", sys.executable)
    text = text.replace("seed=0", " ".join((*TINY, "loss=ce", epochs(folder), "seed=0")))
    (folder / "job.sh").write_text(text)
    cluster.call("sbatch", "job.sh", cwd=folder)
    sweeps = folder / "outputs" / "sweep"
    wait_for(lambda: bool(runs.find(sweeps)), "the run has finished", 1500)
    check("the script of docs/scale.md went on after its time limit", runs.find(sweeps)[0].metrics["parts"] > 1)


def ranks(cluster: Slurm, folder: Path) -> None:
    """One training on two processes, started by srun and by torchrun."""
    words = ("-m", "kd_lightning.train", *TINY, "loss=ce", "trainer.devices=2")
    cluster.call("srun", "--ntasks-per-node=2", sys.executable, *words, "hydra.run.dir=srun", cwd=folder)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    cluster.call(sys.executable, *torchrun, *words, "hydra.run.dir=torchrun", cwd=folder)
    for name in ("srun", "torchrun"):
        check(f"{name} trained one run on two processes", runs.read(folder / name).metrics["devices"] == 2)


def _check_gone_on(folder: Path, parts: int) -> None:
    """Check that stopped runs end as the same ones that were never stopped."""
    found = runs.find(folder / "sweep")
    check("both runs went on after their last epoch", [run.metrics["parts"] for run in found] == [parts] * 2)
    subprocess.run((*LONG, "hydra.sweep.dir=whole"), cwd=folder, env=environment(), check=True, capture_output=True)
    scores = [[json.dumps(run.metrics["student"], sort_keys=True) for run in runs.find(folder / name)]
              for name in ("sweep", "whole")]  # fmt: skip
    check("their scores are those of runs that were never stopped, to the last bit", scores[0] == scores[1])


def _jobs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "sweep" / ".submitit").glob("*_*") if path.is_dir())


def _log(job: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in job.glob("*_log.*"))


def _was_preempted(job: Path) -> bool:
    return "DUE TO PREEMPTION" in _log(job)


def prove_slurm(folder: Path, only: list[str]) -> None:
    """Run the checks on SLURM, on one cluster without and one with a grace period."""
    for name, job, grace in (
        ("sharing", sharing, 0),
        ("preempted", preempted, 0),
        ("preempted-grace", preempted, 5),
        ("timed-out", timed_out, 0),
        ("script", script, 0),
        ("ranks", ranks, 0),
    ):
        if only and name not in only:
            continue
        print(f"— {name}" + f", {grace} s of grace" * bool(grace), flush=True)
        (folder / name).mkdir()
        with Slurm(folder / f"{name}-cluster", environment(), grace) as cluster:
            job(cluster, folder / name)


def prove_ray(folder: Path) -> None:
    """Run the checks on a Ray that is started here."""
    words = (*SHARING, "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=4", "hydra.sweep.dir=sweep")
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr)
    check("the command waited for its jobs and compared them", "finished runs in" in done.stdout)
    check_shared(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.clusters", description=__doc__)
    parser.add_argument("cluster", choices=("slurm", "ray"))
    parser.add_argument("only", nargs="*", help="names of checks on SLURM; all of them by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kd_cluster") as folder:
        os.chmod(folder, 0o755)
        prove_ray(Path(folder)) if arguments.cluster == "ray" else prove_slurm(Path(folder), arguments.only)
    print("all hold")


if __name__ == "__main__":
    main()
