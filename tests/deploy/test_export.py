"""What is written says the same as what was trained, or is not there."""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch

import kd_lightning
from kd_lightning import export as command_module
from kd_lightning import runs
from kd_lightning.deploy.files.formats import FORMATS, OpenedFile, open_file
from kd_lightning.deploy.files.write import export
from kd_lightning.deploy.samples import samples
from kd_lightning.evaluation.opened import OpenedRun, open_run
from kd_lightning.models.hooks import logits_of
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import trusting
from tests.conftest import Finished

Command = Callable[..., Finished]
Mistake = Callable[[ModuleType, list[str], str], None]


def divided(file: OpenedFile) -> float:
    """Temperature by which the file divides its logits."""
    return file.card.extra.get("divided_by", 1.0)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_what_the_student_says_of_any_number_of_images(
    form: str, run: OpenedRun, written: Callable[..., Path]
) -> None:
    opened = open_file(written(form))
    for count in (1, 5):
        x, _ = samples(run.data, "test", count)
        with torch.no_grad():
            torch.testing.assert_close(opened.answer(x), run.student(x) / divided(opened), atol=1e-4, rtol=0)
    assert list(opened.card.classes) == list("0123456789") and opened.card.inputs["image_size"] == 8
    assert torch.__version__.startswith(opened.card.extra["versions"]["torch"])
    assert opened.card.preprocessing["normalize"]["mean"] == pytest.approx([0.3053] * 3)


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_preprocessing_inside_equals_the_pipeline(form: str, run: OpenedRun, written: Callable[..., Path]) -> None:
    opened = open_file(written(form, preprocessing=True))
    x, _ = samples(run.data, "test", 20)
    pixels = run.data.raw_inputs(x)
    torch.testing.assert_close(run.data.normalize(pixels), x)  # the very pixels that the pipeline normalized
    with torch.no_grad():
        torch.testing.assert_close(opened.answer(pixels), run.student(x) / divided(opened), atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_half_precision_halves_the_file(form: str, written: Callable[..., Path]) -> None:
    half, full = written(form, fp16=True), written(form)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    assert open_file(half).card.extra["precision"] == "fp16"


def test_without_dynamic_batch_the_file_has_one_image(run: OpenedRun, tmp_path: Path) -> None:
    path, parity = export(run, "onnx", tmp_path / "one.onnx")
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert parity.difference <= 1e-4 and parity.agreement == 1
    x, _ = samples(run.data, "test", 3)
    assert open_file(path).answer(x).shape == (3, 10)  # one after the other


def test_a_quantized_student_runs_in_integers(int8_run: Path, tmp_path: Path) -> None:
    import onnxruntime

    path, parity = export(open_run(int8_run), "onnx", tmp_path / "int8.onnx", dynamic_batch=True)
    assert parity.agreement >= 0.97
    graph = onnx.load(path).graph
    kinds = [node.op_type for node in graph.node]
    assert "QuantizeLinear" in kinds and "DequantizeLinear" in kinds
    convolutions = [w for w in graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) == 4]
    assert len(convolutions) == 7
    scales = {i.name: i for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in {w.name for w in convolutions}:
            assert list(scales[node.input[1]].dims) == [scales[node.input[0]].dims[0]]  # a scale for each channel
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    run = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert run.count("QLinearConv") == 7 and "Conv" not in run and "FusedConv" not in run
    float_file = (int8_run / runs.STUDENT).stat().st_size
    assert path.stat().st_size < 0.5 * float_file


def test_a_file_that_differs_is_not_kept(run: OpenedRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not kept: it differs from PyTorch on 256 test samples"):
        export(run, "pt2", tmp_path / "x.pt2", tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_over_only_if_asked(run: OpenedRun, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists; write over it with --force"):
        export(run, "safetensors", path)
    assert path.read_text() == "mine"
    with pytest.raises(UserError, match="is not kept"):
        export(run, "safetensors", path, force=True, fp16=True, tolerance=1e-12)
    assert path.read_text() == "mine"
    export(run, "safetensors", path, force=True)
    assert open_file(path).card.name == "resnet8"


def test_the_command_writes_into_the_run_directory(distilled: Path, command: Command, tmp_path: Path) -> None:
    run = Path(shutil.copytree(distilled, tmp_path / "run"))
    done = command(command_module, run, "--format", "safetensors")
    assert done.status == 0, done.err
    assert "same class for 100.00%" in done.out and (run / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "--format", "onxn"], "--format must be one of onnx, .*did you mean 'onnx'"),
        (["RUN", "--out", "x.pt2"], "--out: a file of --format onnx ends in .onnx"),
        (["RUN", "--out", "nowhere/x.onnx"], "cannot write nowhere/x.onnx"),
        (["RUN", "--out", "/proc/x.onnx"], "cannot write /proc/x.onnx"),
        (["RUN", "--out", "X.onnx", "--tolerance", "0"], "--tolerance must be a number > 0"),
        (["RUN", "--out", "X.onnx", "loss=ce"], "loss=ce cannot be changed"),
        (["INT8", "--out", "X.onnx", "--fp16"], "--fp16: the student is quantized"),
        (["INT8", "--out", "X.pt2", "--format", "pt2"], "--format pt2: PyTorch would run an int8 student in floats"),
        (["RUN", "--format", "safetensors", "--with-preprocessing"], "--with-preprocessing: safetensors"),
        (["MASK", "--out", "X.onnx", "--with-preprocessing"], "--with-preprocessing is for images"),
        (["CAPRICIOUS", "--out", "X.onnx"], "--format onnx: .*Capricious cannot be exported"),
        (["UNFINISHED", "--out", "X.onnx"], "did not finish"),
        (["EMPTY", "--out", "X.onnx"], "is not a run directory"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words: list[str], message: str, assert_refused: Mistake) -> None:
    assert_refused(command_module, words, message)


@pytest.mark.parametrize("form", FORMATS)
def test_a_dictionary_of_inputs_keeps_its_names(form: str, mask_run: Path, tmp_path: Path) -> None:
    with trusting():
        run = open_run(mask_run)
        path, parity = export(run, form, tmp_path / f"x{FORMATS[form].suffix}", dynamic_batch=True)
        opened = open_file(path)
        x, _ = samples(run.data, "test", 5)
    assert parity.difference <= 1e-4
    assert opened.card.extra["input"] == {"ids": "int64 [N, 64]", "mask": "float32 [N, 64]"}
    with torch.no_grad():
        torch.testing.assert_close(opened.answer(x), logits_of(run.student, x) / divided(opened), atol=1e-4, rtol=0)
    labels, probabilities = kd_lightning.load(path, trust=True)(x)
    assert len(labels) == 5 and probabilities.shape == (5, 10)
    if form == "onnx":
        assert [one.name for one in onnx.load(path).graph.input] == ["ids", "mask"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_temperature_is_part_of_the_file_unless_raw(form: str, run: OpenedRun, tmp_path: Path) -> None:
    warm = replace(run, card=replace(run.card, extra={"temperature": 2.0}))
    x, _ = samples(run.data, "test", 5)
    with torch.no_grad():
        logits = run.student(x)
    for raw in (False, True):
        path, parity = export(warm, form, tmp_path / f"{raw}{FORMATS[form].suffix}", dynamic_batch=True, raw=raw)
        assert parity.difference <= 1e-4
        opened = open_file(path)
        assert divided(opened) == (1.0 if raw or form == "safetensors" else 2.0)
        torch.testing.assert_close(opened.answer(x), logits / divided(opened), atol=1e-4, rtol=0)
        for calibrated, temperature in ((True, 2.0), (False, 1.0)):
            model = kd_lightning.load(path, calibrated=calibrated)
            torch.testing.assert_close(model(x).probabilities, (logits / temperature).softmax(1), atol=1e-4, rtol=0)


def test_a_missing_runtime_names_the_extra(run: OpenedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    with pytest.raises(UserError, match=r"--format onnx needs onnxruntime: pip install 'kd_lightning\[export\]'"):
        export(run, "onnx", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
