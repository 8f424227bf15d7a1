"""Rows that need one GPU or several."""

import statistics
import time
from typing import Any

import torch

from benchmarks import loops
from benchmarks.result import Result
from benchmarks.setting import CLASSES, Setting, compose
from benchmarks.timing import in_turns, matmul_tflops, wait
from benchmarks.training import warm
from kd_lightning.models import create_model
from kd_lightning.training.run import train

GFLOP = 3.33  # ResNet-18 on 32 × 32 pixels, forward and backward of one image
SEEDS = 5


def gpu_throughput(setting: Setting) -> list[Result]:
    """Images/s of ResNet-18 with the answers of a ResNet-50, compiled, in batches of 1024; share of the matmul rate."""
    if setting.accelerator != "gpu":
        return []
    teacher = warm(setting)
    words = ("trainer.benchmark=true", "data.batch_size=1024")
    clocks = [loops.ours(setting, setting.config(*words), teacher, compiled=True) for _ in range(setting.repeats)]
    rate = statistics.median(clock.images / clock.seconds for clock in clocks)
    share = rate * GFLOP / 1000 / matmul_tflops(setting.device, torch.bfloat16)
    note = f"{share:.0%} of the rate of a bf16 matrix product in the same process"
    return [Result("gpu_throughput", rate, "≥ 50,000 on an H200", rate >= 50_000, note, unit=" images/s")]


def optimizer_ratio(setting: Setting) -> list[Result]:
    """A step of SGD as several kernels / as one."""
    if setting.accelerator != "gpu":
        return []
    parameters = list(create_model(setting.student, CLASSES, image_size=32).to(setting.device).parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    how: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
    several, one = (torch.optim.SGD(parameters, **how, fused=fused) for fused in (False, True))

    def seconds(optimizer: torch.optim.Optimizer) -> float:
        optimizer.step()
        wait(setting.device)
        start = time.perf_counter()
        for _ in range(100):
            optimizer.step()
        wait(setting.device)
        return (time.perf_counter() - start) / 100

    ratio = in_turns(lambda: seconds(several), lambda: seconds(one), setting.repeats)
    note = f"{1000 * ratio.a:.2f} against {1000 * ratio.b:.2f} ms"
    return [Result.of("optimizer_ratio", ratio, "reported", None, note)]


def time_to_95(setting: Setting) -> list[Result]:
    """Seconds of training and validation to 95 % test accuracy at the last epoch, mean of 5 seeds: cifar10_fast."""
    if setting.accelerator != "gpu" or setting.data_root is None:
        return []
    seconds, accuracies = [], []
    for seed in range(SEEDS):
        cfg = compose("experiment=cifar10_fast", f"data.root={setting.data_root}", f"seed={seed}")
        metrics = train(cfg, setting.folder / f"fast{seed}")
        seconds.append(metrics["seconds"])
        accuracies.append(metrics["student"]["last"]["test"]["accuracy"])
    mean, accuracy = statistics.mean(seconds), statistics.mean(accuracies)
    met = mean < 120 and accuracy >= 0.95
    note = f"test accuracy {100 * accuracy:.2f} ± {100 * statistics.stdev(accuracies):.2f} %, {SEEDS} seeds"
    return [Result("time_to_95", mean, "< 120 s on an H200", met, note, unit=" s")]
