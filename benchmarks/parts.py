"""Parts of a step by themselves: data, precision and layout, compilation, the cache's answers."""

import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import loops
from benchmarks.result import Result
from benchmarks.setting import CLASSES, Setting
from benchmarks.timing import Ratio, in_turns, matmul_tflops, wait
from kd_lightning.config import build
from kd_lightning.models import create_model
from kd_lightning.types import Batch
from kd_lightning.utils import hardware


def pipeline_ratio(setting: Setting) -> list[Result]:
    """Images/s of the resident pipeline / torchvision's, without a model."""
    data = build(setting.config().data, "data")
    data.setup()
    workers = os.cpu_count() or 1
    theirs = loops.torchvision_loader(setting, workers, batches=(1 + (3 if setting.quick else 10)) * workers)

    def resident() -> float:
        start, images = time.perf_counter(), 0
        loader = data.train_dataloader()
        for batch in loader.source.batches(loader.order(0), setting.batch, 0, 0, setting.device):
            images += len(batch.y)
        wait(setting.device)
        return (time.perf_counter() - start) / images

    def torchvision() -> float:
        since, now, images = 0.0, 0.0, 0
        for i, (x, y) in enumerate(theirs):
            x.to(setting.device)  # waits
            now = time.perf_counter()  # the loop's end also stops the workers, which takes its time
            images += len(y) * (i >= workers)
            if i == workers - 1:  # each has brought a batch
                since = now
        return (now - since) / images

    ratio = in_turns(torchvision, resident, setting.repeats)
    note = f"{1 / ratio.b:,.0f} images/s against {1 / ratio.a:,.0f} with {workers} workers"
    best = ratio.minimum if setting.quick else ratio.median  # CI's machine may be busy for two of three repeats
    return [Result.of("pipeline_ratio", ratio, "≥ 5", best >= 5, note, robust=True)]


def precision_ratio(setting: Setting) -> list[Result]:
    """Contiguous float32 / what a run does by default, for the student's step and the teacher's answer."""
    plain, ours = _student(setting, contiguous=True), _student(setting)
    textbook = create_model(setting.teacher, CLASSES, image_size=32).to(setting.device).eval()
    teacher = setting.live_teacher()
    teacher.apply_(lambda t: t.to(setting.device))
    b = _batch(setting)

    def answers(model: Callable[[], Any], autocast: bool) -> Callable[[], float]:
        def run() -> float:
            with torch.no_grad(), _autocast(setting, autocast):
                return _time(setting, model)

        return run

    step = in_turns(
        lambda: _time(setting, lambda: _step(setting, plain, b, False)),
        lambda: _time(setting, lambda: _step(setting, ours, b, True)),
        setting.repeats,
    )
    told = in_turns(
        answers(lambda: textbook(b.x.contiguous()), False), answers(lambda: teacher(b), True), setting.repeats
    )
    fast = setting.precision == "bf16-mixed"
    targets = (2.0, 2.0) if setting.accelerator == "gpu" else (1.7, 3.0)
    bound = f"; of a matrix product {_bf16_gain(setting):.1f} ×" if fast else ""
    rows: list[tuple[str, Ratio, float]] = [("student", step, targets[0]), ("teacher", told, targets[1])]
    return [
        Result.of(
            f"precision_ratio, {who}",
            ratio,
            f"≥ {target}" if fast else "for bf16",
            ratio.median >= target if fast else None,
            f"{setting.precision}, channels_last: {ratio.b:.3f} s against {ratio.a:.3f} s a batch{bound}",
        )
        for who, ratio, target in rows
    ]


def _bf16_gain(setting: Setting) -> float:
    """Return the speed of a matrix product in bf16, relative to float32, on the device."""
    return matmul_tflops(setting.device, torch.bfloat16) / matmul_tflops(setting.device, torch.float32)


def compile_ratio(setting: Setting) -> list[Result]:
    """Eager step / compiled step, and how many steps pay for the compilation; on a GPU also with CUDA graphs."""
    if setting.quick:
        return []
    rows = [_compile_ratio(setting, "compile_ratio", None)]
    if setting.accelerator == "gpu":
        rows.append(_compile_ratio(setting, "compile_ratio, reduce-overhead", hardware.GRAPHS))
    return rows


def _compile_ratio(setting: Setting, name: str, mode: str | None) -> Result:
    eager, b = _student(setting), _batch(setting)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(setting.folder / name)  # not what an earlier run compiled
    compiled = torch.compile(eager, dynamic=False, mode=mode)
    start = time.perf_counter()
    _step(setting, compiled, b, True)
    wait(setting.device)
    seconds = time.perf_counter() - start
    ratio = in_turns(
        lambda: _time(setting, lambda: _step(setting, eager, b, True)),
        lambda: _time(setting, lambda: _step(setting, compiled, b, True)),
        setting.repeats,
    )
    gain = ratio.a - ratio.b
    even = f"after {seconds / gain:,.0f} steps" if gain > 0 else "never"
    met = ratio.median >= 1.15 if setting.accelerator == "gpu" else None
    note = f"compiling took {seconds:.0f} s; pays {even}"
    return Result.of(name, ratio, "≥ 1.15 on a GPU", met, note)


def cache_exactness(setting: Setting) -> list[Result]:
    """Largest relative difference of a cached answer from the live teacher's, asked in batches of another size."""
    data = build(setting.config().data, "data")
    data.setup()
    teacher, live = setting.cached_teacher(data), setting.live_teacher()
    loader = data.train_dataloader()
    worst = 0.0
    with torch.no_grad(), _autocast(setting, True):
        for network in (teacher, live):
            network.apply_(lambda t: t.to(setting.device))
        for batch in loader.source.batches(loader.order(0), setting.batch, data.view_seed, 0, setting.device):
            cached = teacher.look_up(batch).logits.float()  # asks,
            served = teacher.look_up(batch).logits.float()  # finds
            assert torch.equal(cached, served)
            half = len(batch.y) // 2
            told = live(batch._replace(x=batch.x[:half])).logits.float()
            worst = max(worst, float((served[:half] - told).abs().max() / told.abs().max()))
    limit = 1e-5 if setting.precision == "32-true" else 2**-11
    note = f"stored as {'float32' if setting.precision == '32-true' else 'float16'}"
    return [Result("cache_exactness", worst, f"≤ {limit:.0e}", worst <= limit, note, unit="", robust=True)]


def _student(setting: Setting, contiguous: bool = False) -> nn.Module:
    layout = torch.contiguous_format if contiguous else torch.channels_last
    student = create_model(setting.student, CLASSES, image_size=32)
    return student.to(setting.device).to(memory_format=layout).train()


def _batch(setting: Setting) -> Batch:
    x = torch.randn(setting.batch, 3, 32, 32, device=setting.device).to(memory_format=torch.channels_last)
    y = torch.arange(setting.batch, device=setting.device) % CLASSES
    return Batch(x, y, y)


def _autocast(setting: Setting, on: bool) -> torch.autocast:
    return torch.autocast(setting.device.type, torch.bfloat16, enabled=on and setting.precision == "bf16-mixed")


def _step(setting: Setting, model: Callable[[Tensor], Tensor], batch: Batch, ours: bool) -> None:
    with _autocast(setting, ours):
        logits = model(batch.x if ours else batch.x.contiguous())
        loss = F.cross_entropy(logits.float(), batch.y)
    loss.backward()


def _time(setting: Setting, work: Callable[[], object], times: int = 4) -> float:
    work()
    wait(setting.device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait(setting.device)
    return (time.perf_counter() - start) / times
