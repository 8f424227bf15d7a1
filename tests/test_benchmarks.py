"""The benchmarks measure what they say: equal losses, sides in turns; CI runs all of them by itself."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from benchmarks import gpu, loops, parts, report, training
from benchmarks.result import Result
from benchmarks.setting import Setting
from benchmarks.timing import in_turns
from kd_lightning.utils.trust import trusting


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Setting]:
    with trusting():
        yield Setting("cpu", "resnet8", "resnet8", images=128, batch=32, repeats=1, folder=tmp_path, quick=True)


def test_sides_run_in_turns_and_the_median_counts() -> None:
    order: list[str] = []
    times = {"a": iter([5.0, 2.0, 100.0]), "b": iter([1.0, 1.0, 4.0])}

    def side(name: str) -> float:
        order.append(name)
        return next(times[name])

    ratio = in_turns(lambda: side("a"), lambda: side("b"), 3)
    assert order == ["a", "b"] * 3
    assert (ratio.median, ratio.minimum, ratio.a, ratio.b) == (5.0, 2.0, 5.0, 1.0)
    assert ratio.quartiles == (3.5, 15.0), "of 2, 5 and 25"


def test_the_hand_written_loop_trains_the_very_same(small: Setting) -> None:
    [row] = training.trainer_overhead(small)
    apart = float(row.note.split("differ by ")[1])
    assert apart <= 1e-5 and row.value > 0


def test_the_cache_serves_what_the_teacher_says(small: Setting) -> None:
    [row] = parts.cache_exactness(small)
    assert row.met and row.value <= 1e-5


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torchvision's loader takes a second a batch, and a minute to end; what it was asked for."""
    asked = SimpleNamespace(now=0.0)

    def clock() -> float:
        asked.now += 1e-6
        return float(asked.now)

    def loader(setting: Setting, workers: int = 1, batches: int = 4) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        asked.workers, asked.batches = workers, batches
        for _ in range(batches):
            asked.now += 1
            yield torch.randn(setting.batch, 3, 32, 32), torch.zeros(setting.batch, dtype=torch.long)
        asked.now += 60

    monkeypatch.setattr(loops, "torchvision_loader", loader)
    for module in (loops, parts):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock))
    return asked


def test_the_end_of_the_workers_is_not_loading(small: Setting, asked: SimpleNamespace) -> None:
    [row] = parts.pipeline_ratio(replace(small, quick=False))
    assert f"against 32 with {os.cpu_count()} workers" in row.note, "a batch of 32 takes a second"
    assert asked.workers == os.cpu_count() and asked.batches >= 11 * asked.workers, "one each to start, ten to time"
    assert loops.textbook(small) == pytest.approx(1 / 32, rel=1e-3)


def test_the_loader_has_as_many_batches_as_asked(small: Setting) -> None:
    assert [len(y) for _, y in loops.torchvision_loader(small, workers=0)] == 4 * [32]
    assert [len(y) for _, y in loops.torchvision_loader(small, workers=0, batches=6)] == 6 * [32]


@pytest.mark.parametrize(
    ("student", "device", "met"),
    [
        ("resnet18", "NVIDIA H100 80GB HBM3", True),
        ("resnet18", "NVIDIA A100-SXM4-40GB", None),
        ("resnet8", "NVIDIA H200", None),
    ],
)
def test_targets_of_a_gpu_are_for_one_student_and_device(
    small: Setting, monkeypatch: pytest.MonkeyPatch, student: str, device: str, met: bool | None
) -> None:
    monkeypatch.setattr(gpu, "warm", lambda setting: None)
    monkeypatch.setattr(gpu, "matmul_tflops", lambda *_: 400.0)
    monkeypatch.setattr(loops, "ours", lambda *_, **__: SimpleNamespace(images=60_000, seconds=1.0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: device)
    [row] = gpu.gpu_throughput(replace(small, accelerator="gpu", student=student))
    assert (row.value, row.met) == (60_000, met)
    # 60,000 images/s of 3.33 GFLOP are 200 of 400 TFLOP/s; ResNet-8 has 0.07
    assert row.note.startswith("50%" if student == "resnet18" else "1%")

    test = {"student": {"last": {"test": {"accuracy": 0.96}}}, "seconds": 60.0}
    monkeypatch.setattr(gpu, "train", lambda cfg, folder: test)
    [row] = gpu.time_to_95(replace(small, accelerator="gpu", data_root="data"))
    assert row.met == (None if "A100" in device else True)


def test_one_kernel_is_compared_with_the_default_of_torch(small: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    sgd = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda p, **how: made.append(how) or sgd(p, **how))
    monkeypatch.setattr(Setting, "device", torch.device("cpu"))
    [row] = gpu.optimizer_ratio(replace(small, accelerator="gpu"))
    assert [(how.get("foreach"), how.get("fused")) for how in made] == [(True, None), (None, True)]
    assert "foreach=True" in row.note and "fused=True" in row.note


def test_results_are_kept_with_machine_and_versions(tmp_path: Path, small: Setting) -> None:
    machine = report.about(small, "python -m benchmarks --quick")
    rows = [
        Result("some_ratio", 4.0, "≥ 5", False, "note", quartiles=(3.9, 4.2), minimum=3.5),
        Result("rate", 0.25, "≤ 1", True, "", unit=" s"),
    ]
    report.write(tmp_path, rows, machine)
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    assert torch.__version__.startswith(written["machine"]["versions"]["torch"]) and written["machine"]["device"]
    assert [r["value"] for r in written["results"]] == [4.0, 0.25]
    assert (
        "| `some_ratio` | 4.00 × | 3.90–4.20 | 3.50 × | ≥ 5 | missed | note |"
        in (tmp_path / "benchmarks.md").read_text()
    )
    assert (tmp_path / "benchmarks.png").stat().st_size > 5000
    chart = report.chart(rows[:1], machine)
    assert isinstance(chart, Figure) and [bar.get_width() for bar in chart.axes[0].patches] == [pytest.approx(3.0)]
