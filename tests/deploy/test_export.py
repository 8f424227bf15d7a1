"""What is written says the same as what was trained, or is not there."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from kd_lightning import export as command_module
from kd_lightning import runs
from kd_lightning.deploy.files.formats import FORMATS, open_file
from kd_lightning.deploy.files.write import export, to_pixels
from kd_lightning.deploy.source import Source, open_source
from kd_lightning.utils.checks import UserError
from tests.conftest import Finished

Command = Callable[..., Finished]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_what_the_student_says_of_any_number_of_images(
    form: str, source: Source, written: Callable[..., Path]
) -> None:
    opened = open_file(written(form))
    for count in (1, 5):
        x, _ = source.images("test", count)
        with torch.no_grad():
            torch.testing.assert_close(opened.answer(x), source.student(x), atol=1e-4, rtol=0)
    assert opened.about["classes"] == list("0123456789") and opened.about["image_size"] == 8
    assert torch.__version__.startswith(opened.about["versions"]["torch"])
    assert opened.about["normalize"]["mean"] == pytest.approx([0.3053] * 3)


@pytest.mark.parametrize("form", ["onnx", "pt2", "torchscript"])
def test_preprocessing_inside_equals_the_pipeline(form: str, source: Source, written: Callable[..., Path]) -> None:
    opened = open_file(written(form, preprocessing=True))
    x, _ = source.images("test", 20)
    pixels = to_pixels(x, source.about)
    torch.testing.assert_close(source.data.normalize(pixels), x)  # the very pixels that the pipeline normalized
    with torch.no_grad():
        torch.testing.assert_close(opened.answer(pixels), source.student(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_half_precision_halves_the_file(form: str, written: Callable[..., Path]) -> None:
    half, full = written(form, fp16=True), written(form)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    assert open_file(half).about["precision"] == "fp16"


def test_without_dynamic_batch_the_file_has_one_image(source: Source, tmp_path: Path) -> None:
    path, parity = export(source, "onnx", tmp_path / "one.onnx")
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert parity.difference <= 1e-4 and parity.agreement == 1
    x, _ = source.images("test", 3)
    assert open_file(path).answer(x).shape == (3, 10)  # one after the other


def test_a_quantized_student_runs_in_integers(int8_run: Path, tmp_path: Path) -> None:
    import onnxruntime

    path, parity = export(open_source(int8_run, []), "onnx", tmp_path / "int8.onnx", dynamic_batch=True)
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
    float_file = (int8_run / runs.RUN_WEIGHTS).stat().st_size
    assert path.stat().st_size < 0.5 * float_file


def test_a_file_that_differs_is_not_kept(source: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not kept: it differs from PyTorch on 256 test images"):
        export(source, "torchscript", tmp_path / "x.torchscript", tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_over_only_if_asked(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists; write over it with --force"):
        export(source, "safetensors", path)
    assert path.read_text() == "mine"
    with pytest.raises(UserError, match="is not kept"):
        export(source, "safetensors", path, force=True, fp16=True, tolerance=1e-12)
    assert path.read_text() == "mine"
    export(source, "safetensors", path, force=True)
    assert open_file(path).about["name"] == "resnet8"


def test_the_command_writes_into_the_run_directory(distilled: Path, command: Command) -> None:
    done = command(command_module, distilled, "--format", "safetensors")
    assert done.status == 0, done.err
    assert "same class for 100.00%" in done.out


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
        (["CAPRICIOUS", "--out", "X.onnx"], "--format onnx: .*Capricious cannot be exported"),
        (["UNFINISHED", "--out", "X.onnx"], "did not finish"),
        (["EMPTY", "--out", "X.onnx"], "is not a run directory"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    words: list[str],
    message: str,
    distilled: Path,
    int8_run: Path,
    capricious_run: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EMPTY", "UNFINISHED"):
        (tmp_path / name).mkdir()
    (tmp_path / "UNFINISHED" / runs.CONFIG).write_text((distilled / runs.CONFIG).read_text())
    places = {"RUN": distilled, "INT8": int8_run, "CAPRICIOUS": capricious_run}
    before = sorted(tmp_path.rglob("*"))
    done = command(command_module, *(places.get(word, word) for word in words))
    assert done.status == 2 and re.search(message, done.err), done
    assert done.err.count("\n") == 1, done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_runtime_names_the_extra(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    with pytest.raises(UserError, match=r"--format onnx needs onnxruntime: pip install 'kd_lightning\[export\]'"):
        export(source, "onnx", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
