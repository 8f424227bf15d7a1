"""Studies are made again from small data, and tables are written one way."""

import csv
import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kd_lightning.utils import tables
from kd_lightning.utils.tables import Column

ROWS = [{"name": "a|b", "score": -1.25, "values": [1, 2]}, {"name": "c"}]
COLUMNS = [Column("name", "model"), Column("score", "score, %", ".1f"), Column("values", "values", str, "left")]


@pytest.fixture(scope="module")
def studies() -> Any:
    spec = importlib.util.spec_from_file_location("make_studies", Path(__file__).parents[2] / "docs/make_studies.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert "### all: resnet8" in out and "| `ce` |  |  | baseline | 78.90 ± 0.10 |" in out
    assert "| `kd_cifar` | +3.00 | +3.00 … +3.00 |" in out, "no spread of the differences"
    assert "ECE" not in out and "train kd_cifar" in out
    assert (tmp_path / "study_all_resnet8.png").is_file()
