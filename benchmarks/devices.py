"""Several devices: how much of its speed each keeps when they train together."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import torch

from benchmarks.loops import WARM_UP
from benchmarks.result import Result
from benchmarks.setting import Setting
from benchmarks.timing import in_turns
from kd_lightning import runs

ROOT = Path(__file__).parent.parent


def ddp_efficiency(setting: Setting) -> list[Result]:
    """Images/s of plain training on n devices / (n × one device), with batches of the same size on each.

    On a CPU, two processes of one thread. Whole runs of `kd_lightning.train`, as a user would start them.
    """
    count = torch.cuda.device_count() if setting.accelerator == "gpu" else 2
    if setting.quick or count < 2:
        return []
    ratio = in_turns(
        lambda: 1 / _images_per_second(setting, 1),
        lambda: count / _images_per_second(setting, count),
        setting.repeats,
    )
    met = ratio.median >= 0.9 if setting.accelerator == "gpu" else None
    note = f"{count / ratio.b:,.0f} images/s on {count} against {1 / ratio.a:,.0f} on one"
    if setting.accelerator != "gpu":
        note += ", processes of one thread"
    return [Result.of("ddp_efficiency", ratio, "≥ 0.9 on GPUs", met, note)]


def _images_per_second(setting: Setting, devices: int) -> float:
    out = setting.folder / uuid.uuid4().hex
    words = [
        *setting.words(setting.images * devices), "loss=ce", f"trainer.devices={devices}", f"hydra.run.dir={out}",
        f"trainer.log_every_n_steps={WARM_UP}",  # the first window is not counted
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)} | ({"OMP_NUM_THREADS": "1"} if setting.accelerator == "cpu" else {})
    command = [sys.executable, "-m", "kd_lightning.train", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(runs.read(out).metrics["images_per_second"])
