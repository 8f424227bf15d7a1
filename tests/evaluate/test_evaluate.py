"""A run evaluated end to end, verified, and what a user may do wrong."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kd_lightning import evaluate
from kd_lightning.cli import expand
from kd_lightning.evaluation.record import evaluate as evaluate_run
from kd_lightning.evaluation.verify import verify
from kd_lightning.utils import latency
from kd_lightning.utils.checks import UserError
from tests.conftest import Finished

Command = Callable[..., Finished]


@pytest.fixture
def run(distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change; latency is measured for an instant."""
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    monkeypatch.setattr(latency, "WARM_UP", 0.0)
    return Path(shutil.copytree(distilled, tmp_path / "run"))


def change(file: Path, how: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(file.read_text())
    how(values)
    file.write_text(json.dumps(values))


def test_evaluate_writes_everything_that_a_report_draws(run: Path, command: Command) -> None:
    done = command(evaluate, run, "--images", 40)
    assert done.status == 0, done.err
    assert all(len(line) <= 80 for line in done.out.splitlines() if str(run) not in line)
    for words in (
        "calibrated",
        "agrees with teacher",
        "KL(teacher‖student)",
        "noise, %",
        "latency, batch 64, ms",
    ):
        assert words in done.out

    values = json.loads((run / "evaluation.json").read_text())
    recorded = json.loads((run / "metrics.json").read_text())
    for model, scores in (("student", values["student"]["best"]), ("teacher", values["teacher"])):
        test = scores["test"]
        told = recorded[model]["best"]["test"] if model == "student" else recorded[model]["test"]
        assert {k: test[k] for k in ("accuracy", "nll", "ece")} == pytest.approx(
            {k: told[k] for k in ("accuracy", "nll", "ece")}, abs=1e-4
        )
        assert sum(map(sum, test["confusion"])) == sum(test["reliability"]["count"]) == 360
        assert len(test["per_class"]) == 10
        assert set(test["calibrated"]) == {"temperature", "nll", "brier", "ece", "reliability"}
        assert {k: len(v) for k, v in scores["robustness"].items()} == {
            "clean": 1, "noise": 3, "blur": 3, "contrast": 3, "jpeg": 3, "brightness": 3
        }  # fmt: skip
        size = values[model]
        assert (size["parameters"], size["macs"]) == (recorded[model]["parameters"], recorded[model]["macs"])
        assert size["bytes"] > 4 * size["parameters"]
        assert all(0 < size["latency"][n]["median_ms"] <= size["latency"][n]["p95_ms"] for n in ("1", "64"))
    test = values["student"]["best"]["test"]
    assert test["agreement"] == pytest.approx(recorded["student"]["best"]["test"]["agreement"])
    assert test["kl_t1"] == pytest.approx(recorded["student"]["best"]["test"]["kl"], abs=1e-4)
    assert set(values["student"]) >= {"best", "last"} and values["threads"] == 1
    for name in ("reliability", "classes", "confusion", "corruptions"):
        with Image.open(run / f"evaluation_{name}.png") as picture:
            picture.verify()
    assert not [p.name for p in run.iterdir() if p.name.startswith(".")]


def test_a_teacher_that_is_gone_is_said_and_the_student_evaluated(run: Path, command: Command) -> None:
    done = command(evaluate, run, "--images", 0, "model.teacher_weights=gone.pt")
    assert done.status == 0 and "the student is evaluated alone" in done.out and "gone.pt" in done.out
    values = json.loads((run / "evaluation.json").read_text())
    assert values["teacher"] is None and "gone.pt" in values["note"]
    assert "agreement" not in values["student"]["best"]["test"] and "robustness" not in values["student"]["best"]


def test_a_deleted_checkpoint_is_left_out(run: Path) -> None:
    (run / "best.ckpt").unlink()
    values = evaluate_run(run, images=0)
    assert "last" in values["student"] and "best" not in values["student"]


def test_verify_passes_and_notices_every_altered_number(run: Path, command: Command) -> None:
    done = command(evaluate, run, "--verify")
    assert done.status == 0 and "reproduces" in done.out, done
    assert not (run / "evaluation.json").exists()
    for model, name, by in (("student", "accuracy", 0.01), ("student", "nll", 0.01), ("teacher", "ece", 0.02)):
        shutil.copy(run / "metrics.json", run.parent / "kept.json")

        def alter(values: dict[str, Any], model: str = model, name: str = name, by: float = by) -> None:
            part = values[model]["best"] if model == "student" else values[model]
            part["test"][name] += by

        change(run / "metrics.json", alter)
        result = verify(run)
        failed = [check.name for check in result.checks if not check.ok]
        assert failed == [f"{'best' if model == 'student' else model} {name}"], name
        shutil.copy(run.parent / "kept.json", run / "metrics.json")


def test_verify_that_fails_has_exit_status_1(run: Path, command: Command) -> None:
    change(run / "metrics.json", lambda m: m["student"]["last"]["test"].update(accuracy=0.999))
    done = command(evaluate, run, "--verify")
    assert done.status == 1 and "does not reproduce: last accuracy" in done.out


def test_one_bad_run_does_not_keep_the_others_from_being_done(run: Path, command: Command) -> None:
    crashed = Path(shutil.copytree(run, run.parent / "crashed"))
    (crashed / "metrics.json").unlink()
    done = command(evaluate, crashed, run, "--images", 0)
    assert done.status == 2 and "did not finish" in done.err and (run / "evaluation.json").is_file()


def test_a_folder_stands_for_the_runs_in_it(run: Path) -> None:
    shutil.copytree(run, run.parent / "run2")
    assert expand([str(run.parent), "data.root=x"]) == ([run, run.parent / "run2"], ["data.root=x"])


MISTAKES: list[tuple[list[str], str]] = [
    (["EMPTY"], "EMPTY is not a run directory"),
    (["nowhere"], "nowhere is not a run directory"),
    (["RUN", "loss.alpha=2"], "loss.alpha=2 cannot be changed in an evaluation"),
    (["RUN", "data=digit"], "data must be one of .* did you mean 'digits'"),
    (["RUN", "data=image_folder", "data.root=nowhere"], "data.root=nowhere: there is no such folder"),
    (["RUN", "trainer.accelerator=tpu"], "trainer.accelerator must be one of"),
    (["RUN", "--images", "-3"], "--images must be a whole number >= 0, got -3"),
    (["data.root=x"], "give run directories"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_a_mistake_is_one_line(words: list[str], message: str, run: Path, command: Command) -> None:
    empty = run.parent / "EMPTY"
    empty.mkdir()
    done = command(evaluate, *({"RUN": run, "EMPTY": empty}.get(word, word) for word in words))
    assert done.status == 2 and re.search(message, done.err), done
    assert done.err.count("\n") == 1 and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "message"), [('{"schema": 0}', "has schema 0"), ("{", "is damaged"), ("[1]", "is damaged")]
)
def test_metrics_of_another_version_are_one_line(run: Path, text: str, message: str) -> None:
    (run / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=message):
        evaluate_run(run)
