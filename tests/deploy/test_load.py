"""What `kd_lightning.load` and the example scripts answer, and that a user may come with any kind of image."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import kd_lightning
from kd_lightning.data import decode
from kd_lightning.deploy.samples import samples
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.utils.checks import UserError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def files(written: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format → a file that takes pixels, and `image`, a digit to ask about."""
    folder = tmp_path_factory.mktemp("image")
    made = {f: written(f, preprocessing=True) for f in ("onnx", "pt2")}
    digit = np.round(load_digits().images[0] * 15.9375).astype(np.uint8)
    Image.fromarray(digit).save(folder / "zero.png")
    return made | {"image": folder / "zero.png"}


def test_a_run_directory_and_a_file_answer_alike_to_any_kind_of_image(run: OpenedRun, files: dict[str, Path]) -> None:
    x, _ = samples(run.data, "test", 4)
    pixels = run.data.raw_inputs(x)
    temperature = run.card.extra.get("temperature", 1.0)
    expected = (run.student.eval()(x) / temperature).softmax(1).detach()
    for path in (run.path, files["onnx"]):
        model = kd_lightning.load(path)
        array = pixels.numpy()
        kinds = [pixels, array, list(array), pixels.permute(0, 3, 1, 2), [Image.fromarray(a) for a in array]]
        for images in kinds:
            answer = model(images)
            torch.testing.assert_close(answer.probabilities, expected, atol=1e-4, rtol=0)
            assert answer.labels == [model.classes[k] for k in expected.argmax(1).tolist()]
        one = model(Image.fromarray(array[0]))
        assert len(one.labels) == 1 and one.probabilities.shape == (1, 10)
        assert model(Image.fromarray(array[0]).resize((50, 30))).probabilities.sum() == pytest.approx(1, abs=1e-5)
    labels, probabilities = kd_lightning.load(run.path)(x)
    assert len(labels) == 4
    torch.testing.assert_close(probabilities, expected)


def test_what_is_no_image_is_told(run: OpenedRun, files: dict[str, Path]) -> None:
    model = kd_lightning.load(run.path)
    for images, message in (
        ("cat.png", "cannot read cat.png"),
        (7, "an image must be uint8"),
        (np.zeros((8, 8, 3)), "an image must be uint8"),
        (torch.zeros(3, 8, 8), "normalized"),
        (torch.zeros(1, 3, 9, 9), r"normalized \[N, 3, 8, 8\]"),
    ):
        with pytest.raises(UserError, match=message):
            model(images)
    with pytest.raises(UserError, match="uint8 pixels"):
        kd_lightning.load(files["onnx"])(torch.zeros(1, 3, 8, 8))


def test_a_path_that_holds_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("no")
    (tmp_path / "x.zip").write_text("no")
    with pytest.raises(UserError, match="damaged or was not written by kd_lightning"):
        kd_lightning.load(tmp_path / "x.onnx")
    for path in (tmp_path / "x.zip", tmp_path / "none.onnx"):
        with pytest.raises(UserError, match="neither a run directory nor a file that export wrote"):
            kd_lightning.load(path)
    with pytest.raises(UserError, match="is not a run directory"):
        kd_lightning.load(tmp_path)


@pytest.mark.parametrize(
    ("script", "form"),
    [("exported_program.py", "pt2"), ("run_directory.py", "")],
)
def test_the_example_of_each_runtime_names_the_digit(
    script: str,
    form: str,
    run: OpenedRun,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if form:
        monkeypatch.setitem(sys.modules, "kd_lightning", None)  # as if it were not installed
    words = [EXAMPLES / script, files[form] if form else run.path, files["image"]]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    runpy.run_path(str(EXAMPLES / script))
    assert capsys.readouterr().out.split() == expected(run, files["image"])


@pytest.mark.parametrize(("script", "form"), [("onnxruntime_alone.py", "onnx"), ("exported_program.py", "pt2")])
def test_the_examples_read_pictures_as_the_training_does(
    script: str,
    form: str,
    run: OpenedRun,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clear = Image.open(files["image"]).convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(0, 256, 32, dtype=np.uint8), (8, 1))).resize(clear.size))
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    monkeypatch.setattr(sys, "argv", [script, str(files[form]), str(tmp_path / "clear.png")])
    runpy.run_path(str(EXAMPLES / script))
    assert capsys.readouterr().out.split() == expected(run, tmp_path / "clear.png")
    monkeypatch.setattr(sys, "argv", [script, str(files[form]), str(tmp_path / "deep.png")])
    with pytest.raises(SystemExit, match="more than 8 bits a channel"):
        runpy.run_path(str(EXAMPLES / script))


def test_an_onnx_file_needs_onnxruntime_alone(run: OpenedRun, files: dict[str, Path], tmp_path: Path) -> None:
    code = "import runpy, sys; sys.modules['torch'] = sys.modules['kd_lightning'] = None; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0])"
    command = [sys.executable, "-c", code, EXAMPLES / "onnxruntime_alone.py", files["onnx"], files["image"]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected(run, files["image"])


def expected(run: OpenedRun, image: Path) -> list[str]:
    """The digit and its probability, by the student itself."""
    x = run.data.normalize(torch.from_numpy(np.array(decode(image)))[None])
    with torch.no_grad():
        probabilities = (run.student.eval()(x) / run.card.extra.get("temperature", 1.0)).softmax(1)
    return [str(int(probabilities.argmax())), f"{float(probabilities.max()):.1%}"]


def test_the_package_is_imported_without_torch() -> None:
    code = "import kd_lightning, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)})
