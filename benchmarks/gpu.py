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
from kd_lightning.models.size import count_macs
from kd_lightning.training.run import train

SEEDS = 5


def _has_targets() -> bool:
    """Return whether the GPU is one for which the targets are."""
    return any(name in torch.cuda.get_device_name() for name in ("H100", "H200"))


def gpu_throughput(setting: Setting) -> list[Result]:
    """Images/s of the student with a teacher's answers, compiled, in batches of 1024; share of the matmul rate."""
    if setting.accelerator != "gpu":
        return []
    teacher = warm(setting)
    words = ("trainer.benchmark=true", "data.batch_size=1024")
    clocks = [loops.ours(setting, setting.config(*words), teacher, compiled=True) for _ in range(setting.repeats)]
    rate = statistics.median(clock.images / clock.seconds for clock in clocks)
    macs = count_macs(create_model(setting.student, CLASSES, image_size=32), torch.randn(1, 3, 32, 32))
    work = 6 * macs / 1e12  # of an image: two operations each, and backward takes twice as many as forward
    share = rate * work / matmul_tflops(setting.device, torch.bfloat16)
    met = rate >= 50_000 if setting.student == "resnet18" and _has_targets() else None
    note = f"{share:.0%} of the rate of a bf16 matrix product in the same process"
    return [Result("gpu_throughput", rate, "≥ 50,000 on an H100 or H200", met, note, unit=" images/s")]


def optimizer_ratio(setting: Setting) -> list[Result]:
    """A step of SGD as torch does it by default on a GPU, with kernels for lists of tensors / as one fused kernel."""
    if setting.accelerator != "gpu":
        return []
    parameters = list(create_model(setting.student, CLASSES, image_size=32).to(setting.device).parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    how: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
    default, fused = (torch.optim.SGD(parameters, **how, **{kind: True}) for kind in ("foreach", "fused"))

    def seconds(optimizer: torch.optim.Optimizer) -> float:
        optimizer.step()
        wait(setting.device)
        start = time.perf_counter()
        for _ in range(100):
            optimizer.step()
        wait(setting.device)
        return (time.perf_counter() - start) / 100

    ratio = in_turns(lambda: seconds(default), lambda: seconds(fused), setting.repeats)
    note = f"torch's default, foreach=True: {1000 * ratio.a:.2f} ms; fused=True: {1000 * ratio.b:.2f} ms"
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
    met = (mean < 120 and accuracy >= 0.95) if _has_targets() else None
    note = f"test accuracy {100 * accuracy:.2f} ± {100 * statistics.stdev(accuracies):.2f} %, {SEEDS} seeds"
    return [Result("time_to_95", mean, "< 120 s on an H100 or H200", met, note, unit=" s")]
