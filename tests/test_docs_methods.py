"""docs/methods.md says what the code says, and its worked example works, from outside of the package."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs import make_methods
from kd_lightning import runs
from kd_lightning.runs.students import load_student

PAGE = make_methods.PAGE.read_text()


def test_the_table_is_what_the_code_makes() -> None:
    assert make_methods.page() == PAGE, "run python docs/make_methods.py"


def test_every_preset_has_a_row_and_a_measured_cost() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert rows == make_methods.PRESETS == sorted(json.loads(make_methods.COSTS.read_text())["cost"])


def test_a_method_without_its_lines_is_told() -> None:
    with pytest.raises(ValueError, match=r"docstring of torch.nn.Linear lacks a line 'Matches: …'"):
        make_methods.about("torch.nn.Linear")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Writes the two files of the page into an empty folder, as a reader would; returns the words of its command."""
    section = PAGE.partition("## Add one in two files")[2]
    names = re.findall(r"`([\w/]+\.(?:py|yaml))`:\n", section)
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", section, re.DOTALL)
    for name, text in zip(names, blocks, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert names == ["cosine.py", "my_conf/loss/cosine.yaml"]
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does with the current folder
    (command,) = re.findall(r"```bash\npython -m kd_lightning.train (.*?)\n```", section, re.DOTALL)
    return command.replace("\\\n", " ").split()


@pytest.mark.usefixtures("no_pictures")
def test_the_worked_example_trains(example: list[str], cli: Any) -> None:
    brief = ("teacher_stage.max_epochs=4", "trainer.max_epochs=2", "data.train_size=320", "data.batch_size=32")
    done = cli(*example, *brief, "trainer.accelerator=cpu", "hydra.run.dir=outputs/run", tiny=False)
    assert done.status == 0, done.err
    run = runs.read(Path("outputs/run"))
    terms = run.metrics["train"]
    assert 0 < terms["cosine"] < 2 and terms["loss"] == pytest.approx(terms["ce"] + 2 * terms["cosine"], rel=1e-4)
    assert not any("project" in name for name in load_student(run.path)[0].state_dict())
    done = cli(*example, "loss.power=-1", tiny=False)
    assert done.status == 2 and done.err == "error: loss.power must be a number > 0, got -1\n"
