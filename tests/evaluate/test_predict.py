"""Predictions for images of any size and format."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from kd_lightning import predict, runs
from kd_lightning.deploy.samples import samples
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.prediction import Prediction, Predictor
from kd_lightning.evaluation.prediction import predict as predictions
from kd_lightning.runs.students import load_student, save_student
from tests.conftest import Finished, environment

Command = Callable[..., Finished]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight digits in as many guises."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    pixels = np.round(load_digits().images[:8] * 15.9375).astype(np.uint8)
    digits = [Image.fromarray(p) for p in pixels]
    digits[0].save(folder / "0.png")
    digits[1].convert("RGBA").save(folder / "1.png")
    digits[2].convert("P").save(folder / "2.gif")
    digits[3].resize((60, 40)).convert("CMYK").save(folder / "3.jpg")
    digits[4].convert("1").save(folder / "4.bmp")
    Image.fromarray(pixels[5].astype(np.uint16) * 256).save(folder / "5.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    digits[6].rotate(90).save(folder / "6.png", exif=exif)
    digits[7].save(folder / "more" / "7.png")
    (folder / "notes.txt").write_text("not an image, and not asked for")
    return folder


def test_json_lines_hold_the_top_classes_of_every_image(distilled: Path, images: Path, command: Command) -> None:
    done = command(predict, distilled, images, "--json", "--teacher", "--top", 3)
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [Path(line["image"]).name[0] for line in lines] == list("01234567")
    for line in lines:
        for model in ("student", "teacher"):
            p = [best["probability"] for best in line[model]]
            assert len(p) == 3 and p == sorted(p, reverse=True) and 0 <= sum(p) <= 1 + 1e-5


def test_a_picture_turned_by_exif_is_seen_upright(distilled: Path, images: Path) -> None:
    predictor = Predictor(open_run(distilled))
    Image.fromarray(np.round(load_digits().images[6] * 15.9375).astype(np.uint8)).save(images / "upright.png")
    assert (predictor.preprocess.read(images / "6.png") == predictor.preprocess.read(images / "upright.png")).all()


def test_predictions_are_what_the_student_says_of_its_test_set(distilled: Path, tmp_path: Path) -> None:
    run = open_run(distilled)
    x, _ = samples(run.data, "test", 12)
    paths = [tmp_path / f"{i}.png" for i in range(len(x))]
    for path, pixels in zip(paths, run.data.raw_inputs(x), strict=True):
        Image.fromarray(pixels.numpy()).save(path)
    with torch.no_grad():
        said = (run.student(x) / run.card.extra["temperature"]).softmax(1)
    for path, told, expected in zip(paths, predictions(Predictor(run), paths, 10), said.tolist(), strict=True):
        assert isinstance(told, Prediction) and told.path == path
        assert dict(told.top["student"]) == pytest.approx(dict(zip("0123456789", expected, strict=True)), abs=1e-5)


def test_a_prediction_holds_the_pixels_of_its_image(distilled: Path, images: Path) -> None:
    (told,) = predictions(Predictor(open_run(distilled)), [images / "0.png"], 10)
    assert isinstance(told, Prediction)
    pixels = np.round(load_digits().images[0] * 15.9375).astype(np.uint8)
    assert (told.pixels.numpy() == pixels[..., None]).all()


def test_a_table_and_a_sheet(distilled: Path, images: Path, tmp_path: Path, command: Command) -> None:
    done = command(predict, distilled, images / "0.png", images / "more", "--sheet", tmp_path / "sheet.png")
    assert done.status == 0 and "%" in done.out and "7.png" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100


def test_names_that_are_long_or_no_utf8_are_told(
    distilled: Path, images: Path, tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / ("long_" * 20)
    folder.mkdir()
    odd = Path(os.fsdecode(bytes(folder) + b"/caf\xe9_1.png"))
    shutil.copy(images / "0.png", odd)
    done = command(predict, distilled, folder)
    assert done.status == 0 and r"caf\xe9_1.png" in done.out, "the end of a path tells files apart"
    assert all(len(line) <= 80 for line in done.out.splitlines())
    assert json.loads(command(predict, distilled, odd, "--json").out)["image"].endswith(r"caf\xe9_1.png")


def test_an_unreadable_image_is_one_line_and_the_others_are_done(
    distilled: Path, images: Path, command: Command
) -> None:
    (images / "broken.png").write_bytes(b"\x89PNG no")
    done = command(predict, distilled, images, images / "missing.png", "--json")
    assert done.status == 1 and len(done.out.splitlines()) == 8
    assert len(done.err.splitlines()) == 2
    assert "broken.png: not an image" in done.err and "missing.png: No such file" in done.err
    assert command(predict, distilled, images / "broken.png").status == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "EMPTY"], "no images in the folder"),
        (["EMPTY", "IMAGE"], "is not a run directory"),
        (["TEACHER", "IMAGE", "--teacher"], "--teacher: the run in .* had no teacher"),
        (["RUN", "IMAGE", "--top", "0"], "--top must be a whole number >= 1"),
        (["RUN", "IMAGE", "--sheet", "nowhere/x.png"], "--sheet: there is no folder nowhere"),
        (["RUN", "IMAGE", "--sheet", "IMAGE"], "--sheet: .* exists; give another name"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, distilled: Path, teacher_run: Path, images: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "EMPTY").mkdir()
    places = {"RUN": distilled, "TEACHER": teacher_run, "IMAGE": images / "0.png", "EMPTY": tmp_path / "EMPTY"}
    done = command(predict, *(places.get(word, word) for word in words))
    assert done.status == 2 and re.search(message, done.err), done
    assert done.err.count("\n") == 1


def test_the_temperature_of_the_card_calibrates_the_student_alone(
    distilled: Path, images: Path, tmp_path: Path, command: Command
) -> None:
    run = Path(shutil.copytree(distilled, tmp_path / "run"))
    model, card = load_student(run)
    save_student(run, model, replace(card, extra={"temperature": 0.25}))
    metrics = json.loads((run / runs.METRICS).read_text())
    runs.write_metrics(run, metrics)  # with the new checksum
    told = {}
    for words in ((), ("--raw",)):
        done = command(predict, run, images / "0.png", "--json", "--teacher", "--top", 10, *words)
        told[words] = json.loads(done.out)
    assert told[()]["temperature"] == 0.25 and told["--raw",]["temperature"] == 1
    assert told[()]["teacher"] == told["--raw",]["teacher"]
    raw = {best["class"]: best["probability"] for best in told["--raw",]["student"]}
    sharper = {c: p**4 for c, p in raw.items()}
    for best in told[()]["student"]:
        assert best["probability"] == pytest.approx(sharper[best["class"]] / sum(sharper.values()), abs=1e-4)
    assert "calibrated (T = 0.25" in command(predict, run, images / "0.png").out


def test_keys_alone_are_nothing_to_predict(distilled: Path, command: Command) -> None:
    done = command(predict, distilled, "trainer.accelerator=cpu")
    assert done.status == 2 and done.err == "error: give images, sentences or recordings beside the keys\n"


@pytest.mark.parametrize(("word", "is_key"), [("data.root=x", True), ("+a.b=1", True), ("E=mc2 is a formula", False)])
def test_a_sentence_with_such_a_sign_is_no_key(word: str, is_key: bool) -> None:
    assert predict._is_override(word) is is_key


def test_an_image_named_twice_is_predicted_twice(distilled: Path, images: Path, command: Command) -> None:
    done = command(predict, distilled, images / "0.png", images / "0.png", "--json")
    assert len(done.out.splitlines()) == 2


def test_one_flipped_bit_in_the_weights_is_noticed(
    distilled: Path, images: Path, tmp_path: Path, command: Command
) -> None:
    run = Path(shutil.copytree(distilled, tmp_path / "run"))
    damaged = bytearray((run / runs.STUDENT).read_bytes())
    damaged[-100] ^= 1
    (run / runs.STUDENT).write_bytes(damaged)
    done = command(predict, run, images)
    assert done.status == 2 and "checksum" in done.err and done.err.count("\n") == 1


def test_a_finished_run_without_its_weights_is_not_told_to_resume(
    distilled: Path, images: Path, tmp_path: Path, command: Command
) -> None:
    run = Path(shutil.copytree(distilled, tmp_path / "run"))
    (run / runs.STUDENT).unlink()
    done = command(predict, run, images)
    assert done.status == 2 and "though it finished" in done.err and "resume=" not in done.err


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_help_does_not_wait_for_torch(name: str) -> None:
    code = f"""
import sys
from kd_lightning import {name}
sys.argv[1:] = ["--help"]
try:
    {name}.main()
except SystemExit:
    assert not {{"torch", "matplotlib", "hydra"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment())
