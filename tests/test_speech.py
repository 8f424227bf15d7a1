"""Recordings pass through every command: trained, distilled, cached, evaluated, heard, exported, made smaller."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kd_lightning
from kd_lightning import compare, compress, export, measure, predict, runs
from kd_lightning.deploy.files.formats import open_file
from kd_lightning.deploy.files.write import export as export_run
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.record import evaluate
from kd_lightning.runs.students import load_student
from kd_lightning.teachers.opened import TeacherSpec, open_teacher
from kd_lightning.training.build import build_experiment
from kd_lightning.training.fill import fill
from kd_lightning.training.run import train
from kd_lightning.utils import latency
from kd_lightning.utils.checks import UserError
from tests.conftest import Finished, compose, environment
from tests.data.test_recordings import AUGMENT, RATE, recordings, tone, write

soundfile = pytest.importorskip("soundfile")
Command = Callable[..., Finished]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    for split, count, seed in (("train", 40, 0), ("val", 10, 1000), ("test", 20, 2000)):
        recordings(folder / "data" / split, count, seed)
    return folder


def composed(place: Path, *overrides: str, **data: Any) -> Any:
    cfg = compose(
        *("optimizer=adamw", "teacher_stage=adamw", "optimizer.lr=0.01", "trainer.max_epochs=4"),
        *("teacher_stage.max_epochs=4", "teacher_stage.optimizer.lr=0.01", "model.student=audio_dscnn"),
        *("model.teacher=audio_crnn", "+model.teacher_kwargs={widths: [8, 16], hidden: 16}"),
        *(f"teacher_stage.dir={place / 'teachers'}", f"model.teacher_cache={place / 'cache'}"),
        *overrides,
    )
    cfg.data = {
        **{"_target_": "kd_lightning.data.AudioFolderDataModule", "root": str(place / "data"), "batch_size": 16},
        **{"sample_rate": RATE, "seconds": 0.4, "bands": 16, "augment": AUGMENT, "seed": cfg.seed},
        **data,
    }
    return cfg


@pytest.fixture(scope="module")
def distilled(place: Path) -> Path:
    train(composed(place), place / "runs" / "kd")
    return place / "runs" / "kd"


def test_a_run_trains_its_teacher_learns_from_it_and_is_rebuilt(distilled: Path, place: Path) -> None:
    metrics = runs.read(distilled).metrics
    assert metrics["teacher"]["test"]["accuracy"] > 0.9 and metrics["student"]["last"]["test"]["accuracy"] > 0.9
    _, card = load_student(distilled)
    assert card.preprocessing["kind"] == "audio" and card.inputs["bands"] == 16
    (table,) = (place / "cache").rglob("*.bin")  # a row for each of four views
    assert 80 * 4 * 2 * 2 <= table.stat().st_size < 80 * 4 * 32
    seen = EventAccumulator(str(distilled)).Reload()
    assert "z_test/samples" in seen.Tags()["images"]


@pytest.mark.slow
def test_the_cache_changes_nothing_and_can_be_filled_ahead(distilled: Path, place: Path, tmp_path: Path) -> None:
    live = train(composed(place, "model.teacher_cache=off"), tmp_path / "live")
    fill(composed(place, f"model.teacher_cache={tmp_path / 'filled'}"))
    filled = train(composed(place, f"model.teacher_cache={tmp_path / 'filled'}"), tmp_path / "b")
    cached = runs.read(distilled).metrics
    assert live["teacher"]["test"] == cached["teacher"]["test"]
    for one in (live, filled):  # answers are stored in half precision
        nll = cached["student"]["last"]["test"]["nll"]
        assert one["student"]["last"]["test"]["nll"] == pytest.approx(nll, abs=1e-2)


@pytest.mark.parametrize(
    "words",
    [
        ("loss=fitnets", "loss.student_layers=last", "loss.teacher_layers=last"),
        ("loss=rkd", "model.student=audio_crnn"),
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (
                ("loss=ce", "model.student=audio_cnn"),
                ("loss=attention", "loss.student_layers=last", "loss.teacher_layers=last"),
                ("loss=dkd",),
                ("loss=sp",),
                ("loss=crd", "loss.negatives=16"),
                ("loss=dml",),
            )
        ),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_losses_and_networks(words: tuple[str, ...], place: Path, tmp_path: Path, no_pictures: None) -> None:
    metrics = train(composed(place, *words, "trainer.max_epochs=1"), tmp_path / "run")
    assert 0 < metrics["train"]["loss"] < 1000 and metrics["student"]["last"]["test"]["accuracy"] > 0.3


def test_few_labels_and_an_ensemble(distilled: Path, place: Path, tmp_path: Path, no_pictures: None) -> None:
    (teacher,) = (path for path in (place / "teachers").iterdir() if runs.is_finished(path))  # knew all of them
    both = ("model.teacher=[audio_crnn,audio_crnn]", f"model.teacher_weights=[{teacher},{teacher}]")
    cfg = composed(place, "loss=kd_only", *both, "trainer.max_epochs=2", label_fraction=0.5)
    cfg.model.teacher_kwargs = [cfg.model.teacher_kwargs] * 2
    assert train(cfg, tmp_path / "run")["student"]["last"]["test"]["accuracy"] > 0.3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model.student=resnet8",), "resnet8 is a network for images.*give one of audio_cnn"),
        (("model.teacher_normalize=imagenet",), r"model\.teacher_normalize is for images"),
        (("+model.student_kwargs.wide=2",), "audio_dscnn refuses its arguments"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], told: str, place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told) as caught:
        train(composed(place, *words), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_evaluated_and_compared(distilled: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    values = evaluate(distilled)
    assert values["teacher"] is not None and values["data"]["kind"] == "audio"
    assert values["student"]["last"]["test"]["accuracy"] == runs.read(distilled).student["test"]["accuracy"]
    assert command(compare, distilled.parent).status == 0


def test_another_front_end_is_refused(distilled: Path, place: Path) -> None:
    data = build_experiment(composed(place, "loss=ce", hop=0.02)).data
    with pytest.raises(UserError, match=r"model\.teacher_weights: this teacher hears other .*; use data\.hop=0\.03$"):
        open_teacher(TeacherSpec("audio_dscnn", {}, str(distilled / "student.safetensors")), data)
    with pytest.raises(UserError, match=r"1 s at 16,000 Hz, .*was trained on .*0\.4 s at 4,000 Hz"):
        _ = open_run(distilled, ["data=audio_folder", f"data.root={place / 'data'}"]).data


# Raw recordings


def test_files_and_folders_are_predicted(distilled: Path, tmp_path: Path, command: Command) -> None:
    write(tmp_path / "more" / "low.flac", tone(300, 0.3, 8000), 8000)
    write(tmp_path / "silent.wav", np.zeros(100, np.float32))
    write(tmp_path / "empty.wav", np.zeros(0, np.float32))
    (tmp_path / "broken.wav").write_bytes(b"RIFF, or so it says")
    high = write(tmp_path / "high.wav", np.stack([tone(1500, 3.0)] * 2, 1))
    done = command(predict, distilled, tmp_path, high, "--json", "--teacher")
    assert done.status == 1
    errors = done.err.splitlines()
    assert len(errors) == 2 and errors[0].startswith(f"error: cannot read {tmp_path / 'broken.wav'}: ")
    assert errors[1] == f"error: {tmp_path / 'empty.wav'} is empty: a recording of 0 seconds"
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [Path(line["recording"]).name for line in told] == ["high.wav", "low.flac", "silent.wav", "high.wav"]
    assert [told[i]["student"][0]["class"] for i in (0, 1)] == ["high", "low"] and len(told[0]["teacher"]) == 2
    assert told[0]["cut"] and told[2]["silent"] and "cut" not in told[1]


def test_a_table_and_a_sheet(
    distilled: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav", tone(300, 0.6, 8000), 8000)
    done = command(predict, distilled, "a.wav", "--sheet", "sheet.png")
    assert done.status == 0 and "Resampled from 8,000 to 4,000 Hz." in done.out
    assert "1 of 1 are longer than 0.4 s; their middle was heard." in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())
    with Image.open("sheet.png") as sheet:
        assert min(sheet.size) > 100


@pytest.mark.parametrize(
    ("word", "told"),
    [("none.wav", "cannot read none.wav: "), ("empty", "no recordings in the folder empty (1 × .txt file left out)")],
)
def test_what_cannot_be_heard_is_one_line(
    word: str, told: str, distilled: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no recording")
    done = command(predict, distilled, word)
    assert done.status == 2 and told in done.err and len(done.err.splitlines()) == 1


def test_loaded_and_asked_from_python(distilled: Path, tmp_path: Path) -> None:
    model = kd_lightning.load(distilled)
    low, high = tone(300, 0.4), tone(1500, 0.4)
    path = write(tmp_path / "low.wav", low)
    labels, p = model([path, high])
    assert labels == ["low", "high"] and p.shape == (2, 2)
    whole = (low * 32768).round().astype(np.int16)
    for same in (str(path), whole, torch.from_numpy(whole / 32768).float(), np.stack([whole, whole])):
        torch.testing.assert_close(model(same).probabilities[:1], p[:1], atol=1e-3, rtol=0)
    spectrogram = model._logmel(torch.from_numpy(high)[None])
    torch.testing.assert_close(model(spectrogram).probabilities, p[1:], atol=1e-3, rtol=0)
    for wrong in (3, whole.astype(float), np.zeros((1, 2, 3)), np.zeros(0), np.array([1, 2]), [np.array([np.nan])], []):
        with pytest.raises(UserError, match="recording"):
            model(wrong)


# Smaller, and in files


@pytest.fixture(scope="module")
def file(distilled: Path, place: Path) -> Path:
    """An ONNX file that takes any number of waveforms."""
    export_run(open_run(distilled), "onnx", place / "waves.onnx", dynamic_batch=True, preprocessing=True)
    return place / "waves.onnx"


def check(file: Path, run: Path) -> None:
    """Raise AssertionError unless a file says of waveforms what its student says."""
    waves = [tone(300, 0.4), tone(1500, 0.2), np.zeros(1600, np.float32)]
    expected, found = kd_lightning.load(run)(waves), kd_lightning.load(file, trust=True)
    torch.testing.assert_close(found(waves).probabilities, expected.probabilities, atol=1e-4, rtol=0)
    torch.testing.assert_close(found(waves[0]).probabilities, expected.probabilities[:1], atol=1e-4, rtol=0)


def test_the_front_end_is_inside_the_file(file: Path, distilled: Path) -> None:
    check(file, distilled)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form"), [("audio_dscnn", "pt2"), ("audio_crnn", "onnx"), ("audio_crnn", "pt2"), ("audio_cnn", "onnx")]
)
def test_every_network_is_written(name: str, form: str, place: Path, tmp_path: Path, no_pictures: None) -> None:
    train(composed(place, "loss=ce", f"model.student={name}", "trainer.max_epochs=1"), tmp_path / "run")
    out = tmp_path / f"model.{form}"
    export_run(open_run(tmp_path / "run"), form, out, dynamic_batch=True, preprocessing=True)
    check(out, tmp_path / "run")


def test_a_waveform_is_all_that_onnxruntime_needs(file: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file))
    (given,) = session.get_inputs()
    assert (given.name, given.shape[1], given.type) == ("waveform", 1600, "tensor(float)")
    (logits,) = session.run(None, {"waveform": tone(1500, 0.4)[None]})
    assert open_file(file).card.classes[int(logits.argmax())] == "high"


def test_the_example_hears_a_file_of_another_rate_in_24_bits(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1500, 0.6, 8000), 8000, subtype="PCM_24")
    labels, p = kd_lightning.load(file, calibrated=False)(path)
    command = [sys.executable, Path(__file__).parents[1] / "examples" / "recording_alone.py", file, path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    label, percent = done.stdout.split()
    assert [label] == labels == ["high"] and abs(float(percent[:-1]) / 100 - float(p.max())) < 0.03, done.stderr


def test_a_file_that_takes_waveforms_is_no_teacher_of_spectrograms(file: Path, place: Path, tmp_path: Path) -> None:
    cfg = composed(place, f"model.teacher_weights={file}")
    cfg.model.teacher_kwargs = {}
    with pytest.raises(UserError, match="cannot take the inputs of this data set") as caught:
        train(cfg, tmp_path / "other")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_exported_student_teaches(distilled: Path, place: Path, tmp_path: Path) -> None:
    export_run(open_run(distilled), "onnx", tmp_path / "plain.onnx", dynamic_batch=True)
    cfg = composed(place, f"model.teacher_weights={tmp_path / 'plain.onnx'}", "trainer.max_epochs=1")
    cfg.model.teacher_kwargs = {}
    assert train(cfg, tmp_path / "run")["teacher"]["test"]["accuracy"] > 0.9


@pytest.mark.slow
def test_made_smaller_and_measured(distilled: Path, command: Command, tmp_path: Path) -> None:
    done = command(compress, distilled, "--quantize", "int8", "--out", tmp_path / "int8")
    assert done.status == 0, done.err
    assert runs.read(tmp_path / "int8").student["test"]["accuracy"] > 0.8
    assert command(export, tmp_path / "int8", "--with-preprocessing", "--out", tmp_path / "int8.onnx").status == 0
    assert kd_lightning.load(tmp_path / "int8.onnx")(tone(300, 0.4)).labels == ["low"]
    done = command(compress, distilled, "--prune", "0.5", "--out", tmp_path / "sparse", "trainer.max_epochs=1")
    assert done.status == 0 and runs.read(tmp_path / "sparse").metrics["compression"]["zeros"] > 0.4, done.err
    done = command(measure, distilled, "--runtimes", "eager,onnx", "--out", tmp_path / "measured")
    assert done.status == 0, done.err
