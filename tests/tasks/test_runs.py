"""A student of two tasks goes every way through the commands: trained, evaluated, compared, exported, loaded."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kd_lightning
from kd_lightning import compare, compress, evaluate, export, measure, predict, runs
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.verify import verify
from kd_lightning.runs.students import load_student
from kd_lightning.training.run import train
from kd_lightning.training.tasks import one_task
from kd_lightning.utils import latency
from kd_lightning.utils.checks import UserError
from tests.conftest import Finished, compose

Command = Callable[..., Finished]
TEACHERS = "model.teacher={digit: resnet14, parity: resnet8}"


def composed(place: Path, *words: str) -> Any:
    return compose(
        *("data=digits_tasks", TEACHERS, "teacher_stage.max_epochs=5", f"teacher_stage.dir={place / 'teachers'}"),
        *("model.teacher_cache=memory", *words),
    )


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="session")
def together(place: Path) -> Path:
    """Run directory of a student of both tasks, each with a teacher of its own."""
    train(composed(place, "trainer.max_epochs=4"), place / "runs" / "together")
    return place / "runs" / "together"


@pytest.fixture(scope="session")
def alone(place: Path, together: Path) -> Path:
    """Run directory of a student of one of the tasks, with the same teacher."""
    train(one_task(composed(place, "data.task=parity")), place / "runs" / "alone")
    return place / "runs" / "alone"


def test_each_task_has_its_teacher_and_its_scores(together: Path, place: Path) -> None:
    run = runs.read(together)
    test, teacher = run.student["test"], run.metrics["teacher"]
    assert {"digit/accuracy", "parity/accuracy", "digit/agreement", "parity/nll", "digit/top5"} <= set(test)
    assert test["accuracy"] == pytest.approx((test["digit/accuracy"] + test["parity/accuracy"]) / 2)
    assert test["parity/accuracy"] > 0.55 and test["digit/accuracy"] > 0.2
    assert [path["task"] for path in teacher["weights"]] == ["digit", "parity"]
    assert {"digit/ce", "digit/kd", "parity/ce", "parity/kd", "loss"} <= set(run.metrics["train"])
    names = sorted(path.name for path in (place / "teachers").iterdir() if path.is_dir())
    assert len(names) == 2 and names[0].startswith("digits-resnet14") and names[1].startswith("digits-resnet8")
    assert set(run.student["calibrated"]["temperature"]) == {"digit", "parity"}


def test_the_student_has_one_trunk_and_two_heads(together: Path, alone: Path) -> None:
    student, card = load_student(together)
    answer = student(torch.zeros(3, 3, 8, 8))
    assert {task: list(z.shape) for task, z in answer.items()} == {"digit": [3, 10], "parity": [3, 2]}
    assert card.tasks == {"digit": list("0123456789"), "parity": ["even", "odd"]}
    sizes = [runs.read(path).metrics["student"]["parameters"] for path in (together, alone)]
    assert sizes[0] - sizes[1] == 10 * (64 + 1)  # the other head


def test_one_task_of_the_same_configuration_is_an_ordinary_training(alone: Path, together: Path) -> None:
    run = runs.read(alone)
    assert run.config.model.teacher == "resnet8" and run.config.data.task == "parity"
    both = runs.read(together).metrics["teacher"]
    assert run.metrics["teacher"]["test"]["accuracy"] == pytest.approx(both["test"]["parity/accuracy"])
    assert run.metrics["teacher"]["weights"][0]["absolute"] == both["weights"][1]["absolute"]


def test_verified_and_evaluated(together: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(together).ok
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    done = command(evaluate, together, "--images", "20")
    assert done.status == 0, done.err
    values = json.loads((together / "evaluation.json").read_text())["tasks"]
    test = runs.read(together).student["test"]
    for task, own in values.items():
        assert own["student"]["last"]["test"]["accuracy"] == pytest.approx(test[f"{task}/accuracy"])
        assert own["student"]["last"]["robustness"]["noise"] and own["teacher"]["latency"]["1"]
        assert (together / f"evaluation_{task}_confusion.png").is_file()
    assert values["parity"]["data"]["classes"] == ["even", "odd"]
    assert values["digit"]["teacher"]["name"] == "resnet14" and values["parity"]["teacher"]["name"] == "resnet8"


def test_compared_with_a_column_for_each_task(together: Path, alone: Path, command: Command, tmp_path: Path) -> None:
    done = command(compare, together.parent, "--out", tmp_path)
    assert done.status == 0, done.err
    assert "digit, %" in done.out and "parity, %" in done.out
    rows = list(csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines()))
    mine, other = sorted(rows, key=lambda row: "task=parity" in row["setting"])
    for path, row in ((together, mine), (alone, other)):
        test = runs.read(path).student["test"]
        key = "parity/accuracy" if "parity/accuracy" in test else "accuracy"
        assert float(row["parity/test_mean"]) == pytest.approx(100 * test[key])
    assert mine["digit/test_mean"] and not other["digit/test_mean"]


@pytest.mark.parametrize("form", ["onnx", pytest.param("pt2", marks=pytest.mark.slow), "safetensors"])
def test_one_file_with_several_outputs_is_loaded_again(
    form: str, together: Path, command: Command, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{form}"
    done = command(export, together, "--format", form, "--out", path, "--trust")
    assert done.status == 0, done.err
    pixels = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)
    mine, theirs = kd_lightning.load(together)(pixels), kd_lightning.load(path, trust=True)(pixels)
    assert set(mine) == {"digit", "parity"} and mine["parity"].probabilities.shape == (5, 2)
    for task in mine:
        assert mine[task].labels == theirs[task].labels
        torch.testing.assert_close(mine[task].probabilities, theirs[task].probabilities, atol=1e-4, rtol=1e-3)
    if form == "onnx":
        import onnxruntime

        assert [one.name for one in onnxruntime.InferenceSession(path).get_outputs()] == [
            "logits_digit",
            "logits_parity",
        ]


def test_predicted_measured_and_not_compressed(
    together: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    done = command(predict, together, tmp_path / "a.png", "--json", "--teacher", "--sheet", tmp_path / "sheet.png")
    assert done.status == 0, done.err
    told = json.loads(done.out.splitlines()[0])
    assert {one["class"] for one in told["parity/student"]} == {"even", "odd"} and "digit/teacher" in told
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    monkeypatch.setattr("kd_lightning.deploy.measure.peak_memory", lambda *_: None)  # in a process of its own
    done = command(measure, together, "--runtimes", "eager", "--out", tmp_path, "--samples", "40")
    assert done.status == 0 and "parity, %" in done.out, done.err
    done = command(compress, together, "--quantize", "int8")
    assert done.status == 2 and "has several tasks; only students of one are compressed" in done.err


def test_a_method_a_weight_and_labels_for_some_samples_of_one_task(place: Path, together: Path, tmp_path: Path) -> None:
    methods = (
        "loss={_target_: kd_lightning.losses.Tasks, methods: {digit: {_target_: kd_lightning.losses.KD, alpha: 2.0}, "
        "parity: {_target_: kd_lightning.losses.CE}}, weights: {parity: 0.5}}"
    )
    cfg = composed(place, "+data.task_label_fraction.parity=0.2", "trainer.max_epochs=1")
    cfg.loss = compose(f"+x={methods.removeprefix('loss=')}").x
    metrics = train(cfg, tmp_path / "run")
    terms = metrics["train"]
    assert "digit/kd" in terms and "parity/kd" not in terms
    assert terms["loss"] == pytest.approx(terms["digit/loss"] + 0.5 * terms["parity/loss"], rel=1e-5)
    assert [path["task"] for path in metrics["teacher"]["weights"]] == ["digit"]
    assert "parity/accuracy" not in metrics["teacher"]["test"]
    assert open_run(tmp_path / "run").find_teacher().teacher.of("parity") is None
    assert verify(tmp_path / "run").ok


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model.teacher={digit: resnet8, party: resnet8}",), "model.teacher names the task 'party', but the data has"),
        (("model.teacher={parity: resnet8}",), "task digit: model.teacher has none for this task"),
        (("+model.teacher_weights={parity: gone.pt}",), "task parity: model.teacher_weights: gone.pt does not exist"),
        (("model.teacher_weights={parity: auto, digits: auto}",), "model.teacher_weights names the task 'digits'"),
        (("+loss.weights={digit: -1}",), "loss.weights.digit must be a number >= 0"),
        (("loss=simkd",), "SimKD replaces the student's classifier"),
        (("loss=dml",), "task digit: loss: DML trains a second student"),
        (("loss=ce", "model.student=torch.nn.Flatten"), "model.student"),
        (("data=digits", "loss=kd"), "model.teacher must be the name of a model or a list of them"),
        (("model.teacher=resnet8", "model.chain=[resnet8,resnet8]"), "a chain is for one task; choose data.task"),
        (("data.tasks.parity.even=[0,2,4,6]",), "data.tasks.parity lacks 8"),
    ],
)
def test_a_mistake_is_one_line_before_any_training(words: tuple[str, ...], told: str, cli: Command) -> None:
    named = [word for word in words if word.startswith("model.teacher=")] or [TEACHERS]
    done = cli("data=digits_tasks", *named, *[word for word in words if word not in named])
    assert done.status == 2 and len(done.err.splitlines()) == 1 and told in done.err, done.err
    assert not list(Path("outputs").rglob("*.ckpt"))


def test_a_student_of_other_tasks_is_not_evaluated_on_this_data(together: Path) -> None:
    with pytest.raises(UserError, match="was trained on"):
        _ = open_run(together, ["data=digits"]).data
