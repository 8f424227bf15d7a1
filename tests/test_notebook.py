"""The notebook of the guide runs from its first cell to its last."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "guide.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]


def test_it_is_kept_without_outputs() -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in CELLS if cell["cell_type"] == "code")
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_every_cell_runs(capsys: pytest.CaptureFixture[str]) -> None:
    there: dict[str, Any] = {}
    for cell in CELLS:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), there)
    out = capsys.readouterr().out
    assert "teacher: " in out and "T = 4: " in out and "student distilled: " in out
    assert all(accuracy > 0.5 for accuracy in there["results"].values()), out
