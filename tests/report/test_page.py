"""The page stands alone, shows what the runs have, and leaves out what they have not."""

import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from kd_lightning import runs
from kd_lightning.plots.comparison import Scores, accuracy_figure
from kd_lightning.report.comparison import Comparison
from kd_lightning.report.curves import read_curves
from kd_lightning.report.figures import grid_cells, grids
from kd_lightning.report.folders import compare_folders
from kd_lightning.report.page import page
from kd_lightning.report.tables import csv_text, markdown, terminal_table

Fake = Callable[..., Path]


@pytest.fixture
def grid(fake_run: Fake) -> Comparison:
    """CE, and KD with a grid of temperature and alpha; three seeds each."""
    for seed in range(3):
        fake_run(0.80 + 0.01 * seed**2, "loss=ce", f"seed={seed}")
        for t in (1, 4):
            for alpha in (0.5, 2):
                kd = f"loss.temperature={t}", f"loss.alpha={alpha}"
                path = fake_run(0.81 + 0.002 * t * alpha + 0.01 * seed, "loss=kd", *kd, f"seed={seed}")
    return compare_folders([path.parent])


def test_the_page_needs_no_network(grid: Comparison) -> None:
    html = page(grid, "a <title>")
    assert "&lt;title&gt;" in html and "<script src" not in html and "a <title>" not in html
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html
    HTMLParser().feed(html)
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        ElementTree.fromstring(svg)
        assert "#010203" not in svg and "currentColor" in svg, "lines in the colour of the page"
    assert "Temperature × alpha" in html and "Accuracy against cost" in html
    assert "Learning curves" not in html and "Reliability" not in html, "no events, no evaluation"


def test_what_was_evaluated_is_drawn(fake_run: Fake) -> None:
    path = fake_run(0.8, "loss=kd", samples="these")
    bins = {"confidence": [0.3, 0.7], "accuracy": [0.4, 0.6], "count": [40, 60]}
    test = {"ece": 0.1, "reliability": bins, "confusion": [[30, 20], [10, 40]]}
    model = {"name": "resnet8", "latency": {"1": {"median_ms": 2.0}}}
    student = model | {"last": {"test": test}}
    evaluation = {"select": "last", "data": {"classes": ["cat", "dog"]}, "student": student}
    better = test | {"confusion": [[45, 5], [5, 45]]}
    evaluation["teacher"] = {"name": "resnet20", "latency": {"1": {"median_ms": 9.0}}, "test": better}
    (path / runs.EVALUATION).write_text(json.dumps(evaluation))
    html = page(compare_folders([path]), "")
    for words in ("Reliability", "Teacher − student: kd", "milliseconds a sample", "ECE 0.100", "dog"):
        assert words in html
    for key in ("sha256", "samples"):  # of a student that was trained on since, or of other data
        (path / runs.EVALUATION).write_text(json.dumps(evaluation | {key: "another"}))
        assert "Reliability" not in page(compare_folders([path]), "")
    (path / runs.EVALUATION).write_text("{")
    assert "Reliability" not in page(compare_folders([path]), "")


def test_every_row_has_its_command_and_configuration(grid: Comparison) -> None:
    html = page(grid, "")
    assert html.count("<details>") == len(grid.results) == 5
    assert html.count("--config-path") == 5 and "temperature: 4" in html


def test_curves_of_a_real_run(teacher_run: Path) -> None:
    curves = read_curves(teacher_run, ["val/accuracy", "train/ce", "no/such"])
    assert list(curves) == ["val/accuracy", "train/ce"]
    assert list(curves["val/accuracy"]) == list(curves["train/ce"]) == [1, 2, 3, 4]
    assert curves["train/ce"][4] < curves["train/ce"][1]
    assert "Learning curves" in page(compare_folders([teacher_run]), "")


def test_the_terminal_table_fits_80_columns(grid: Comparison) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(terminal_table(grid))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert "temperature=4" in text and "81.67 ± 2.08" in text and not re.search(r"…(?![+−] ?|\s[\d+−])", text), (
        "no number is cut"
    )
    assert text.index("gain") < text.index("verdict") < text.index("test, %") < text.index("val, %")


def test_markdown_and_csv_hold_every_setting(grid: Comparison) -> None:
    lines = [line for line in markdown(grid, "title").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 1 + 5 and len({line.count("|") for line in lines}) == 1
    rows = list(csv.DictReader(io.StringIO(csv_text(grid))))
    assert [float(row["test_mean"]) for row in rows] == pytest.approx([sum(r.scores) / 3 for r in grid.results])
    assert [len(row["runs"].split()) for row in rows] == [3] * 5
    assert float(rows[1]["gain"]) == pytest.approx(float(rows[1]["test_mean"]) - float(rows[0]["test_mean"]))


def test_the_heat_map_shows_validation(grid: Comparison) -> None:
    [results] = grids(grid).values()
    cells, split = grid_cells(results)
    assert split == "validation" and list(cells.values()) == pytest.approx([90] * 4)
    assert "validation accuracy, %" in page(grid, "")


def test_verdicts_have_their_colour_and_columns_their_values(grid: Comparison) -> None:
    html = page(grid, "")
    for result in grid.results[1:]:
        assert f'data-sort="{result.gain.mean}"' in html  # type: ignore[union-attr]
    better = sum(result.verdict == "better" for result in grid.results)
    assert html.count('<span class="better">better</span>') == better
    assert 'data-name="validation, %"' in html and "best on validation" not in html


def test_an_interval_that_is_cut_is_marked() -> None:
    def markers(line: Scores) -> int:
        axes = accuracy_figure([line]).axes[0]
        return sum(drawn.get_marker() in ("<", ">") for drawn in axes.lines)

    assert markers(Scores("kd", [80.0, 81.0], "better", 80.0, -0.1, 0.2)) == 0
    assert markers(Scores("kd", [80.0, 81.0], "better", 80.0, -9.0, 9.0)) == 2
