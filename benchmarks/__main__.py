"""`python -m benchmarks [NAME …] [--quick] [--device gpu]`: all rows, or those named, as ratios with their targets."""

import argparse
import shlex
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import devices, gpu, parts, report, sweeps, training
from benchmarks.result import Result
from benchmarks.setting import CLASSES, Setting
from kd_lightning.cli import clear_errors
from kd_lightning.models import create_model
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import choice
from kd_lightning.utils.console import say
from kd_lightning.utils.quiet import quiet
from kd_lightning.utils.trust import trusting

ROWS = {
    "cache_exactness": parts.cache_exactness,
    "pipeline_ratio": parts.pipeline_ratio,
    "cache_ratio": training.cache_ratio,
    "cold_ratio": training.cold_ratio,
    "trainer_overhead": training.trainer_overhead,
    "naive_ratio": training.naive_ratio,
    "sweep_ratio": sweeps.sweep_ratio,
    "precision_ratio": parts.precision_ratio,
    "compile_ratio": parts.compile_ratio,
    "optimizer_ratio": gpu.optimizer_ratio,
    "ddp_efficiency": devices.ddp_efficiency,
    "gpu_throughput": gpu.gpu_throughput,
    "time_to_95": gpu.time_to_95,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="small nets, within a minute; fails if a ratio is far off")
    parser.add_argument("--device", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--student", help="another than resnet20 (GPU: resnet18)")
    parser.add_argument("--teacher", help="another than resnet56 (GPU: resnet50)")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--data-root", help="folder of cifar-10-batches-py, for time_to_95")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="for the table, JSON and chart")
    args = parser.parse_args()
    quiet()
    warnings.filterwarnings("ignore", "The number of training batches")  # few steps here, logged as ever
    for name in args.names:
        choice("the benchmark", name, tuple(ROWS))
    if args.threads:
        torch.set_num_threads(args.threads)
    accelerator = hardware.resolve_accelerator(args.device)
    with tempfile.TemporaryDirectory(prefix="kd_benchmark_", ignore_cleanup_errors=True) as folder:
        setting = _setting(accelerator, args.quick, args.data_root, Path(folder))
        setting = replace(setting, student=args.student or setting.student, teacher=args.teacher or setting.teacher)
        return _run(setting, args.names or list(ROWS), args.out)


def _run(setting: Setting, names: list[str], out: Path) -> int:
    for key in ("student", "teacher"):
        create_model(getattr(setting, key), CLASSES, image_size=32, key=f"--{key}")
    machine = report.about(setting, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    results: list[Result] = []
    for name in names:
        rows = ROWS[name](setting)
        if setting.quick:  # other targets are for the full setting's networks
            rows = [row if row.robust else replace(row, met=None) for row in rows]
        for row in rows:
            say(f"{row.name}: {report.number(row)} (target {row.target}); {row.note}")
        results += rows
        report.write(out, results, machine)  # after each row: what is measured stays, whatever ends the rest
    report.show(results, machine)
    say(f"written to {out}")
    return int(setting.quick and any(row.met is False and row.robust for row in results))


def _setting(accelerator: str, quick: bool, data_root: str | None, folder: Path) -> Setting:
    if accelerator == "gpu":
        images, repeats = (8192, 3) if quick else (25_600, 5)
        return Setting(accelerator, "resnet18", "resnet50", images, 512, repeats, folder, quick, data_root)
    if quick:
        return Setting(accelerator, "resnet8", "resnet20", 512, 64, 3, folder, quick, data_root)
    return Setting(accelerator, "resnet20", "resnet56", 1024, 128, 5, folder, quick, data_root)


if __name__ == "__main__":
    with clear_errors(), trusting():  # the data set of random images is code of these benchmarks
        sys.exit(main())
