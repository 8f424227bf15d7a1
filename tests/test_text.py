"""Text passes through every command: trained, distilled, cached, evaluated, predicted, exported, made smaller."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import kd_lightning
from kd_lightning import compare, compress, export, measure, predict, runs
from kd_lightning.data.text.tokens import Tokenize
from kd_lightning.deploy.files.recurrent import any_length
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.record import evaluate
from kd_lightning.models.hooks import logits_of
from kd_lightning.models.text import TEXT
from kd_lightning.runs.students import load_student
from kd_lightning.teachers.exported import open_exported
from kd_lightning.training.fill import fill
from kd_lightning.training.run import train
from kd_lightning.utils import latency
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.quiet import unlogged
from tests.conftest import Finished, compose
from tests.data.test_sentences import lines, write

Command = Callable[..., Finished]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for name, count, shift in (("train", 240, 0), ("val", 40, 240), ("test", 80, 280)):
        write(folder / "data" / f"{name}.tsv", lines(count, shift))
    return folder


def composed(place: Path, *overrides: str) -> Any:
    cfg = compose(
        *("optimizer=adamw", "teacher_stage=adamw", "optimizer.lr=0.01", "trainer.max_epochs=3"),
        *("teacher_stage.max_epochs=3", "teacher_stage.optimizer.lr=0.005", "model.student=text_bag"),
        *("model.teacher=text_transformer", "+model.teacher_kwargs={width: 16, depth: 2, heads: 2}"),
        *(f"teacher_stage.dir={place / 'teachers'}", f"model.teacher_cache={place / 'cache'}"),
        *overrides,
    )
    target = "kd_lightning.data.TextFilesDataModule"
    cfg.data = {"_target_": target, "root": str(place / "data"), "batch_size": 16, "max_length": 24, "seed": cfg.seed}
    return cfg


@pytest.fixture(scope="module")
def distilled(place: Path) -> Path:
    train(composed(place), place / "runs" / "kd")
    return place / "runs" / "kd"


def test_a_run_trains_its_teacher_learns_from_it_and_is_rebuilt(distilled: Path, place: Path) -> None:
    metrics = runs.read(distilled).metrics
    assert metrics["teacher"]["test"]["accuracy"] > 0.9 and metrics["student"]["last"]["test"]["accuracy"] > 0.9
    model, card = load_student(distilled)
    assert (
        card.preprocessing["kind"] == "text"
        and card.inputs["vocabulary"] == model.get_submodule("embed").num_embeddings
    )
    sizes = {table.name: table.stat().st_size for table in (place / "cache").rglob("*.bin")}
    assert sizes["views.bin"] < 240 * 32 and sizes["raw.bin"] < 360 * 32, "one row a sample"


def test_the_cache_changes_nothing_and_can_be_filled_ahead(distilled: Path, place: Path, tmp_path: Path) -> None:
    live = train(composed(place, "model.teacher_cache=off"), tmp_path / "live")
    fill(composed(place, f"model.teacher_cache={tmp_path / 'filled'}"))
    filled = train(composed(place, f"model.teacher_cache={tmp_path / 'filled'}"), tmp_path / "b")
    cached = runs.read(distilled).metrics
    assert live["teacher"]["test"] == cached["teacher"]["test"]
    for one in (live, filled):  # answers are stored in half precision
        assert one["student"]["last"]["test"]["nll"] == pytest.approx(
            cached["student"]["last"]["test"]["nll"], abs=1e-3
        )


@pytest.mark.parametrize(
    "words",
    [
        ("loss=dkd", "model.student=text_cnn"),
        ("loss=ce", "model.student=text_transformer"),
        ("loss=rkd", "model.student=text_bilstm"),
        ("loss=fitnets", "loss.student_layers=last", "loss.teacher_layers=last"),
        ("loss=attention", "loss.student_layers=last", "loss.teacher_layers=last", "model.student=text_cnn"),
        ("loss=sp", "model.student=text_bilstm"),
        ("loss=crd", "loss.negatives=16"),
        ("loss=dml",),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_losses_and_networks(words: tuple[str, ...], place: Path, tmp_path: Path) -> None:
    metrics = train(composed(place, *words, "trainer.max_epochs=1"), tmp_path / "run")
    assert 0 < metrics["train"]["loss"] < 1000 and metrics["student"]["last"]["test"]["accuracy"] > 0.3


def test_a_run_shows_sentences_with_the_answers_of_both(distilled: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(distilled)).Reload()
    (tag,) = (tag for tag in events.Tags()["tensors"] if tag.startswith("z_test/samples"))
    text = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
    test = [sentence for sentence, _ in lines(80, shift=280)]
    assert text.count("\n") == 15 and "| sentence | label | student | teacher |" in text
    assert test[0] in text and test[-1] in text, "from all over the split, not the first ones"


def test_few_labels(distilled: Path, place: Path, tmp_path: Path) -> None:
    (teacher,) = (path for path in (place / "teachers").iterdir() if runs.is_finished(path))  # knew all of them
    cfg = composed(place, "loss=kd_only", f"model.teacher_weights={teacher}")
    cfg.data = {**cfg.data, "label_fraction": 0.1}
    assert train(cfg, tmp_path / "run")["student"]["last"]["test"]["accuracy"] > 0.3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model.student=resnet8",), "resnet8 is a network for images.*give one of text_transformer"),
        (("model.teacher_normalize=imagenet",), r"model\.teacher_normalize is for images"),
        (("model.student=text_bag", "+model.student_kwargs.wide=2"), "text_bag refuses its arguments"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], told: str, place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told) as caught:
        train(composed(place, *words), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_network_for_text_is_refused_for_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="text_bag is a network for text, and this data set has none"):
        train(compose("loss=ce", "model.student=text_bag"), tmp_path / "run")


def test_evaluated_and_compared(distilled: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    values = evaluate(distilled)
    assert values["teacher"] is not None and values["data"]["kind"] == "text"
    assert values["student"]["last"]["test"]["accuracy"] == runs.read(distilled).student["test"]["accuracy"]
    assert command(compare, distilled.parent).status == 0


def test_other_data_with_another_tokenizer_is_refused(distilled: Path, tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write(tmp_path / f"{name}.tsv", lines(80, shift=1000))
    with pytest.raises(
        UserError, match=r"^data: text_files has vocabulary \d+, tokenizer \w+, but .* was trained on [^\n]*$"
    ):
        _ = open_run(distilled, [f"data.root={tmp_path}"]).data


# Raw sentences


def test_sentences_and_lines_of_a_file_are_predicted(distilled: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "lines.txt").write_text("the film is awful\n\nthe cast is very lovely, rated = 5\n")
    words = ("the plot is good", "a = b is a bad end", tmp_path / "lines.txt", "word " * 10_000)
    done = command(predict, distilled, *words, "--json", "--teacher")
    assert done.status == 1 and done.err == f"error: {tmp_path / 'lines.txt'}, line 2 is empty\n"
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [line["student"][0]["class"] for line in told[:4]] == ["1", "0", "0", "1"]
    assert [line.get("cut", False) for line in told] == [False] * 4 + [True]
    assert told[0]["text"] == "the plot is good" and len(told[0]["teacher"]) == 2
    table = command(predict, distilled, "the plot is good", "word " * 10_000)
    assert table.status == 0 and "1 of 2 are longer than 24 tokens; the rest was not read." in table.out
    assert all(len(line) <= 80 for line in table.out.splitlines())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("",), "a sentence is empty"),
        (("none.txt",), "cannot read none.txt: No such file"),
        (("latin.txt",), "latin.txt, line 1: not UTF-8"),
        (("fine", "--sheet", "x.png"), "--sheet is for images"),
        (("a=" + "b" * 300,), "unknown key 'a'"),  # too long for the name of a file
        (("mine.csv",), "mine.csv is a file; sentences are read from .txt files"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    words: tuple[str, ...],
    told: str,
    distilled: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "mine.csv").touch()
    done = command(predict, distilled, *words)
    assert done.status == 2 and told in done.err and len(done.err.splitlines()) == 1


def test_loaded_and_asked_from_python(distilled: Path) -> None:
    model = kd_lightning.load(distilled)
    labels, p = model(["the plot is good", "the plot is very awful"])
    assert labels == ["1", "0"] and p.shape == (2, 2)
    alone = model("the plot is good").probabilities
    torch.testing.assert_close(alone, p[:1])
    torch.testing.assert_close(model(model._tokenize.inputs(["the plot is good"])).probabilities, alone)
    for wrong in ("", 3, ["fine", " "]):
        with pytest.raises(UserError, match="a sentence must be a string that is not empty"):
            model(wrong)


# Smaller, and in files


@pytest.fixture(scope="module")
def students(place: Path) -> dict[str, Path]:
    """A run of each network, hardly trained."""
    found = {}
    for name in TEXT:
        found[name] = place / "students" / name
        train(composed(place, "loss=ce", f"model.student={name}", "trainer.max_epochs=1"), found[name])
    return found


@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] * (one == "text_cnn")) for one in TEXT])
def test_exported_for_sentences_of_any_length(
    name: str, form: str, students: dict[str, Path], command: Command, tmp_path: Path
) -> None:
    out = tmp_path / f"model.{form}"
    done = command(export, students[name], "--format", form, "--out", out, "--dynamic-batch")
    assert done.status == 0, done.err
    texts = ["good", "the plot is " + "very " * 12 + "awful", "fine"]
    expected, got = kd_lightning.load(students[name])(texts), kd_lightning.load(out)(texts)
    torch.testing.assert_close(got.probabilities, expected.probabilities, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        kd_lightning.load(out)("good").probabilities, expected.probabilities[:1], atol=1e-4, rtol=0
    )
    if form == "onnx":  # as a teacher
        model, card = load_student(students[name])
        x = Tokenize.parse(card.preprocessing).inputs(texts)
        taught, _ = open_exported(out, "model.teacher_weights")
        torch.testing.assert_close(taught(x), logits_of(model.eval(), x), atol=1e-4, rtol=0, check_dtype=False)


@torch.no_grad()
def test_a_recurrent_layer_is_exported_for_any_length_after_an_export_for_one() -> None:
    layer, x = torch.nn.LSTM(2, 2, batch_first=True).eval(), torch.zeros(1, 3, 2)
    length = {1: torch.export.Dim("length", max=8)}
    with unlogged():  # torch warns of its own code
        torch.export.export(layer, (x,), strict=False)
        with any_length():
            program = torch.export.export(layer, (x,), dynamic_shapes=(length,), strict=False)
    assert program.module()(torch.zeros(1, 5, 2))[0].shape == (1, 5, 2)


def test_exported_for_one_sentence(distilled: Path, command: Command, tmp_path: Path) -> None:
    done = command(export, distilled, "--out", tmp_path / "one.onnx")
    assert done.status == 0, done.err
    labels, _ = kd_lightning.load(tmp_path / "one.onnx")(["the plot is good", "bad " * 9])
    assert labels == ["1", "0"]


def test_int8_of_a_student_answers_alike_in_a_smaller_file(distilled: Path, command: Command, tmp_path: Path) -> None:
    done = command(compress, distilled, "--quantize", "int8", "--out", tmp_path / "int8")
    assert done.status == 0, done.err
    assert runs.read(tmp_path / "int8").student["test"]["accuracy"] > 0.9
    files = []
    for run in (distilled, tmp_path / "int8"):
        assert command(export, run, "--dynamic-batch", "--out", tmp_path / f"{run.name}.onnx").status == 0
        files.append(tmp_path / f"{run.name}.onnx")
    assert files[1].stat().st_size < 0.6 * files[0].stat().st_size
    texts = [text for text, _ in lines(20, shift=600)]
    whole, rounded = (kd_lightning.load(path)(texts).probabilities for path in files)
    assert (whole.argmax(1) == rounded.argmax(1)).all() and float((whole - rounded).abs().max()) < 0.1
    done = command(compress, tmp_path / "int8", "--quantize", "int8", "--qat", "--out", tmp_path / "qat")
    assert done.status == 0, done.err


@pytest.mark.slow
def test_made_smaller_and_measured(distilled: Path, command: Command, tmp_path: Path) -> None:
    done = command(compress, distilled, "--prune", "0.5", "--out", tmp_path / "sparse", "trainer.max_epochs=1")
    assert done.status == 0 and runs.read(tmp_path / "sparse").metrics["compression"]["zeros"] > 0.4, done.err
    done = command(
        compress, distilled, "--prune", "0.5", "--structured", "--out", tmp_path / "s", "trainer.max_epochs=1"
    )
    assert done.status == 0, done.err
    smaller, whole = (runs.read(run).metrics["student"] for run in (tmp_path / "s", distilled))
    assert smaller["macs"] < whole["macs"] and smaller["parameters"] < whole["parameters"]
    done = command(measure, distilled, "--runtimes", "eager,onnx", "--out", tmp_path / "measured")
    assert done.status == 0, done.err
