"""The machine: what precision suits it, what it is called, which versions run on it."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from kd_lightning.utils.checks import UserError, choice, integer
from kd_lightning.utils.gpus import own_gpu

PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true")
LONG_TRAINING = 10_000  # steps; compiling takes about a minute, which a step of 10 ms made 15 % faster regains by then
GRAPHS = "reduce-overhead"
"""Value of `compile` with which the student's step is replayed as a CUDA graph, launched at once."""
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "kd_lightning")


def resolve_accelerator(accelerator: Any) -> str:
    """`cpu`, `gpu` or `mps` for a `trainer.accelerator`. Raises UserError if this machine lacks it."""
    accelerator = {"cuda": "gpu"}.get(accelerator, accelerator)
    choice("trainer.accelerator", accelerator, ("auto", "cpu", "gpu", "mps"))
    present = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return next(name for name, here in present.items() if here)
    if not present[accelerator]:
        raise UserError(f"trainer.accelerator={accelerator}: no such device was found here; use cpu or auto")
    return str(accelerator)


def resolve_devices(devices: Any, accelerator: str) -> Any:
    """Return `trainer.devices` as this machine has them; one GPU is the first that no other run has taken.

    A list of indices or `auto` is left as it is.

    Raises:
        UserError: If there are fewer.
    """
    if isinstance(devices, int) and not isinstance(devices, bool) and devices != -1:
        integer("trainer.devices", devices, ge=1)
        if accelerator == "gpu" and devices > torch.cuda.device_count():
            raise UserError(f"trainer.devices={devices}, but this machine has {torch.cuda.device_count()} GPUs")
        if accelerator == "cpu" and devices > (cores := usable_cores()):
            raise UserError(f"trainer.devices={devices}, but this process may use {cores} CPU cores; use at most that")
        if accelerator == "gpu" and devices == 1 and "LOCAL_RANK" not in os.environ:
            return [own_gpu(torch.cuda.device_count())]
    elif isinstance(devices, (str, bool, float)) and devices != "auto":
        raise UserError(f"trainer.devices must be a whole number, a list of device indices or auto, got {devices!r}")
    return devices


def usable_cores() -> int:
    """Return the number of CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def resolve_precision(precision: Any, accelerator: str) -> str:
    """A Lightning precision for `trainer.precision`; `auto` is bf16-mixed where bf16 is fast. Raises UserError."""
    precision = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}.get(
        str(precision), precision
    )
    choice("trainer.precision", precision, PRECISIONS)
    if precision == "auto":
        return "bf16-mixed" if fast_bf16(accelerator) else "32-true"
    if precision == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed needs a GPU, but the accelerator is cpu; use bf16-mixed or 32-true")
    if precision == "64-true" and accelerator == "mps":
        raise UserError("trainer.precision=64-true: mps has no float64; use 32-true")
    return str(precision)


def fast_bf16(accelerator: str) -> bool:
    """Return whether bf16 arithmetic runs at full speed: GPUs from Ampere on, CPUs with avx512_bf16 or AMX."""
    if accelerator == "gpu":
        return torch.cuda.get_device_capability()[0] >= 8
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if accelerator == "cpu" and cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_compile(wanted: Any, accelerator: str, steps: float) -> str | None:
    """Return torch's mode of compiling for a training of `steps`, or None; `auto`: on a GPU, if it is long.

    Raises:
        UserError: For another value, or CUDA graphs (`reduce-overhead`) without a GPU.
    """
    choice("compile", wanted, ("auto", True, False, GRAPHS))
    if wanted == GRAPHS:
        if accelerator != "gpu":
            raise UserError(f"compile={GRAPHS} records CUDA graphs and needs a GPU; use true or auto")
        return GRAPHS
    compiles = accelerator == "gpu" and steps >= LONG_TRAINING if wanted == "auto" else bool(wanted)
    return "default" if compiles else None


def use_tf32() -> None:
    """Lets a GPU multiply what stays in float32 with TensorFloat-32: 10 bits of mantissa, as bf16-mixed has 7."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True


def free_memory() -> int | None:
    """Bytes of main memory that a process may still take; None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)


def describe(accelerator: str) -> dict[str, Any]:
    """Device name, cores, threads, and versions of all that a result depends on."""
    return {
        "device": torch.cuda.get_device_name() if accelerator == "gpu" else _cpu_name(),
        "accelerator": accelerator,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "git_revision": git_revision(),
    }


def git_revision() -> str | None:
    """The commit this code stands at, `+` appended if files differ from it; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    try:
        revision = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    threads = torch.get_num_threads()
    return f"{name or platform.processor() or platform.machine()}, {threads} thread{'s' * (threads != 1)}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
