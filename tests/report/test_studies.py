"""Studies are made again from small data, and tables are written one way."""

import csv
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kd_lightning.utils import tables
from kd_lightning.utils.tables import Column

ROWS = [{"name": "a|b", "score": -1.25, "values": [1, 2]}, {"name": "c"}]
COLUMNS = [Column("name", "model"), Column("score", "score, %", ".1f"), Column("values", "values", str, "left")]


def script(name: str) -> Any:
    """Import a script of docs/."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / f"docs/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def studies() -> Any:
    return script("make_studies")


def test_a_table_has_three_forms() -> None:
    lines = tables.markdown(COLUMNS, ROWS).splitlines()
    assert lines[:3] == ["| model | score, % | values |", "| --- | ---: | --- |", "| a\\|b | −1.2 | [1, 2] |"]
    assert lines[3] == "| c |  |  |"
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(COLUMNS, ROWS))))
    assert rows[0] == {"name": "a|b", "score": "-1.25", "values": "1 2"} and rows[1]["score"] == ""
    console = Console(width=40, file=io.StringIO())
    console.print(tables.terminal(COLUMNS, ROWS))
    assert "−1.2" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_study_is_remade_from_its_csv(studies: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "study,setting,student,seed,images_seen,val_accuracy,test_accuracy,test_nll,seconds,command"
    lines = [
        f"all,{setting},resnet8,{seed},360000,0.8,{accuracy + seed / 1000},0.6,300,train {setting}"
        for setting, accuracy in (("kd_cifar", 0.818), ("ce", 0.788))
        for seed in (0, 1, 2)
    ]
    path = tmp_path / "all.csv"
    path.write_text("\n".join([head, *lines[:4], lines[4].replace("0.001", "0"), *lines[4:]]) + "\n")
    studies.main([path], tmp_path)
    out = capsys.readouterr().out
    assert "### all: resnet8" in out and "| `ce` |  | baseline | 78.90 ± 0.10 |" in out
    assert "| `kd_cifar` | +3.00 | no difference shown |" in out
    assert "without an interval" in out, "no spread of the differences"
    assert "ECE" not in out and "train kd_cifar" in out
    assert (tmp_path / "study_all_resnet8.png").is_file()


def test_runs_become_lines_of_a_study(studies: Any, fake_run: Callable[..., Path], tmp_path: Path) -> None:
    collect, file = script("collect_study").collect, tmp_path / "digits.csv"
    for seed in range(2):
        for setting, accuracy in (("ce", 0.8), ("kd_only", 0.9)):
            how = {"images_seen": 1000, "labels": 100, "seconds": 61.4}
            path = fake_run(accuracy, f"loss={setting}", f"seed={seed}", "model.student=resnet8", **how)
            metrics = json.loads((path / "metrics.json").read_text())
            metrics["student"]["last"]["calibrated"] = {"temperature": 2.5, "test": {"nll": 0.25, "ece": 0.01}}
            (path / "metrics.json").write_text(json.dumps(metrics))
            path.rename(path.parent / f"{setting}_{seed}")
        fake_run(None, "loss=ce").rename(path.parent / f"ce_{seed + 2}")
        collect(path.parent, file, "train loss={setting} seed={seed}")
    lines = studies.read(file)
    assert [(line["setting"], line["seed"]) for line in lines] == [
        ("ce", "0"),
        ("ce", "1"),
        ("kd_only", "0"),
        ("kd_only", "1"),
    ]
    assert lines[-1]["study"] == "digits" and lines[-1]["student"] == "resnet8" and lines[-1]["seconds"] == "61"
    assert [line["labels"] for line in lines] == ["100", "100", "0", "0"], "kd_only reads no label"
    assert (lines[-1]["calibrated_nll"], lines[-1]["temperature"]) == ("0.25", "2.5")
    assert lines[-1]["command"] == "train loss=kd_only seed=1"
    rows, _, _ = studies.study(lines)
    assert [row["test"] for row in rows] == [[80.0, 80.0], [90.0, 90.0]] and rows[1]["gain"] == pytest.approx(10)


def test_a_run_without_setting_and_seed_in_its_name_is_refused(fake_run: Callable[..., Path], tmp_path: Path) -> None:
    path = fake_run(0.9, "loss=ce", "seed=1", "model.student=resnet8")
    path = path.rename(path.parent / "my run")
    wanted = "the folder must be named <setting>_<seed> or <setting>/<seed>, as ce_1"
    with pytest.raises(SystemExit, match=rf"{path.name}: {wanted}"):
        script("collect_study").collect(path.parent, tmp_path / "digits.csv")
    assert not (tmp_path / "digits.csv").exists()
    (path.parent / "two").mkdir()
    path = path.rename(path.parent / "two" / "1")
    [line] = script("collect_study").collect(path.parent.parent, tmp_path / "digits.csv")
    assert (line["setting"], line["seed"]) == ("two", "1")


def test_a_run_with_several_tasks_has_its_own_script(fake_run: Callable[..., Path], tmp_path: Path) -> None:
    path = fake_run(0.9, "loss=ce", "seed=1", "model.student=resnet8")
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["student"]["last"]["test"] |= {"object/accuracy": 0.8, "kind/accuracy": 1.0}
    (path / "metrics.json").write_text(json.dumps(metrics))
    path = path.rename(path.parent / "together_1")
    with pytest.raises(SystemExit, match=r"together_1 has several tasks.* python docs/tasks_study.py --collect OUT"):
        script("collect_study").collect(path.parent, tmp_path / "tasks.csv")


def test_a_command_may_have_braces_of_its_own(fake_run: Callable[..., Path], tmp_path: Path) -> None:
    path = fake_run(0.9, "loss=ce", "seed=1", "model.student=resnet8")
    path = path.rename(path.parent / "kd_T4_1")
    command = "train 'data.tasks={kind: null}' loss={setting} seed={seed}"
    [line] = script("collect_study").collect(path.parent, tmp_path / "digits.csv", command)
    assert line["command"] == "train 'data.tasks={kind: null}' loss=kd_T4 seed=1"


def test_a_study_of_temperature_and_alpha_has_a_heat_map_of_validation(studies: Any, tmp_path: Path) -> None:
    runs = [
        {"setting": f"T{t}_alpha{a}", "seed": str(seed), "val_accuracy": str(0.6 + 0.01 * t + seed / 100)}
        for t, a in ((1, 0.5), (4, 3))
        for seed in (0, 1)
    ]
    cells = studies.grid([*runs, {"setting": "ce", "seed": "0", "val_accuracy": "0.9"}])
    assert cells == {(1.0, 0.5): pytest.approx(61.5), (4.0, 3.0): pytest.approx(64.5)}
    path = tmp_path / "grid.csv"
    head = "study,setting,student,seed,val_accuracy,test_accuracy"
    path.write_text("\n".join([head, *(f"grid,{r['setting']},r8,{r['seed']},{r['val_accuracy']},0.5" for r in runs)]))
    studies.main([path], tmp_path)
    assert (tmp_path / "study_grid_r8_grid.png").is_file()
