"""The benchmarks measure what they say: equal losses, sides in turns; CI runs all of them by itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from benchmarks import parts, report, training
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
