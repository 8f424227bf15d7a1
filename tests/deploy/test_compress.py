"""The commands: one chain from a distilled student to a measured file, and mistakes that leave nothing."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import kd_lightning
from kd_lightning import compress, evaluate, export, measure, runs
from kd_lightning.deploy import measure as rows
from kd_lightning.deploy import table
from kd_lightning.deploy.files.formats import FORMATS
from kd_lightning.deploy.recipe import TEACHERS
from kd_lightning.deploy.sparsity import sparsity
from kd_lightning.deploy.steps import prune, quantize
from kd_lightning.evaluation.opened import OpenedRun, open_run
from kd_lightning.utils import latency
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import trusting
from tests.conftest import Finished, environment

Command = Callable[..., Finished]
Mistake = Callable[[ModuleType, list[str], str], None]


def test_distill_prune_quantize_export_measure(
    distilled: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole chain of docs/deploy.md; each step reads what the one before it left."""
    monkeypatch.setattr(latency, "SECONDS", 0.05)
    pruned, int8 = tmp_path / "pruned", tmp_path / "int8"
    much = ("trainer.max_epochs=4", "optimizer.lr=0.05")
    done = command(compress, distilled, "--prune", 0.5, "--structured", "--distill", *much, "--out", pruned)
    assert done.status == 0, done.err
    assert all(len(line) <= 80 for line in done.out.splitlines() if "│" in line)
    done = command(compress, pruned, "--quantize", "int8", "--qat", "--distill", "teacher", "--out", int8)
    assert done.status == 0, done.err
    done = command(export, int8, "--with-preprocessing", "--out", tmp_path / "digits.onnx")
    assert done.status == 0, done.err
    assert kd_lightning.load(tmp_path / "digits.onnx").card.extra["precision"] == "int8"
    flipped = bytearray((tmp_path / "digits.onnx").read_bytes())
    flipped[len(flipped) // 2] ^= 64
    (tmp_path / "flipped.onnx").write_bytes(flipped)
    with pytest.raises(UserError, match="its checksum is wrong"):
        kd_lightning.load(tmp_path / "flipped.onnx")

    done = command(measure, int8, "--runtimes", "onnx", "--out", tmp_path / "table")
    assert done.status == 0, done.err
    assert all(len(line) <= 80 for line in done.out.splitlines() if "%" not in line and "written" not in line)
    read = list(csv.DictReader((tmp_path / "table" / "deployment.csv").read_text().splitlines()))
    assert [(row["model"], row["runtime"]) for row in read] == [
        ("teacher resnet8", "onnx"),
        ("int8", "onnx"),
    ]
    teacher, smallest = read
    assert int(smallest["bytes"]) < 0.5 * int(teacher["bytes"])
    assert int(smallest["macs"]) < 0.6 * int(teacher["macs"])
    recorded = runs.read(int8).metrics["teacher"]["test"]["accuracy"]
    assert float(teacher["accuracy"]) == pytest.approx(recorded, abs=0.003)
    assert int(smallest["memory"]) < 300e6
    assert float(smallest["accuracy"]) > 0.3  # of ten classes, after so little training
    with Image.open(tmp_path / "table" / "deployment.png") as picture:
        assert min(picture.size) > 300
    assert (tmp_path / "table" / "deployment.md").read_text().count("\n| ") == 3

    assert command(evaluate, int8, "--verify").status == 0  # the other commands read it too


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN"], "give either --prune R or --quantize int8"),
        (["RUN", "--prune", "0"], "--prune must be a number > 0"),
        (["RUN", "--prune", "1"], "--prune must be a number between 0 and 1"),
        (["RUN", "--prune", "-0.5"], "--prune must be a number > 0"),
        (["RUN", "--prune", "nan"], "--prune must be a number > 0"),
        (["RUN", "--prune", "0.5", "--steps", "0"], "--steps must be a whole number >= 1"),
        (["RUN", "--prune", "0.5", "--qat"], "--qat goes with --quantize"),
        (["RUN", "--quantize", "int4"], "--quantize must be one of int8"),
        (["RUN", "--quantize", "int8", "--distill"], "--distill needs a training: add --qat"),
        (["RUN", "--quantize", "int8", "--structured"], "go with --prune"),
        (["RUN", "--quantize", "int8", "--calibration", "0"], "--calibration must be a whole number >= 1"),
        (["RUN", "--prune", "0.5", "--distill", "me"], "--distill must be one of teacher, student"),
        (["RUN", "--prune", "0.5", "optimizer.lrr=1"], "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'"),
        (["RUN", "--prune", "0.5", "optimizer.lr=-1"], "optimizer.lr must be a number > 0"),
        (["RUN", "--prune", "0.5", "loss=kdd"], "loss must be one of"),
        (["RUN", "--prune", "0.5", "model.student=resnet20"], "model.student=resnet20 cannot be changed"),
        (["RUN", "--prune", "0.5", "optimizer.lr=1,2"], "give one value"),
        (["RUN", "--prune", "0.5", "lr"], "cannot read 'lr'; write key=value"),
        (["RUN", "--prune", "0.5", "--out", "FULL"], "--out: FULL exists"),
        (["RUN", "--prune", "0.5", "--out", "FULL/file/x"], "cannot write or read FULL/file/x"),
        (["RUN", "--prune", "0.5", "--out", "/proc/x"], "--out: cannot write to /proc/x"),
        (["INT8", "--prune", "0.5"], "is quantized; prune first"),
        (["INT8", "--quantize", "int8"], "is quantized already; train it on with --qat"),
        (["CAPRICIOUS", "--prune", "0.5", "--structured"], "--structured"),
        (["CAPRICIOUS", "--quantize", "int8"], "cannot trace Capricious"),
        (["MASK", "--quantize", "int8"], "--quantize: an input of masked_digits is several tensors"),
        (["UNFINISHED", "--prune", "0.5"], "did not finish"),
        (["EMPTY", "--prune", "0.5"], "is not a run directory"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words: list[str], message: str, assert_refused: Mistake) -> None:
    assert_refused(compress, [*words, *([] if "--out" in words else ["--out", "new"])], message)


def test_a_run_may_be_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "inside")
    for word, name in ((".", "inside-int8"), ("..", "run-int8")):
        beside = compress._beside(Path(word), "int8")
        assert beside.parent.resolve() == Path(word).resolve().parent and beside.name == name


def test_each_runtime_gives_a_row(run: OpenedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.05)
    monkeypatch.setattr(rows, "peak_memory", lambda *_: None)  # a process of its own for each
    found = list(rows.measure("run", run, ("eager", "pt2"), tmp_path, 100))
    assert [row.runtime for row in found] == ["eager", "pt2"]
    assert len({row.accuracy for row in found}) == 1 and all(0 < row.median_ms <= row.p95_ms for row in found)
    assert "| run | eager |" in table.markdown(found, "here")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "--runtimes", "eager,tvm"], "--runtimes must be one of eager"),
        (["RUN", "--threads", "0"], "--threads must be a whole number >= 1"),
        (["RUN", "--samples", "0"], "--samples must be a whole number >= 1"),
        (["nowhere"], "is not a run directory"),
    ],
)
def test_a_mistake_in_measuring_is_one_line(words: list[str], message: str, assert_refused: Mistake) -> None:
    assert_refused(measure, words, message)


def test_a_kill_after_the_metrics_leaves_a_whole_run(
    run: OpenedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of the compression is there as soon as the run counts as finished."""
    write = runs.write_metrics

    def write_and_die(*args: Any) -> None:
        write(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "write_metrics", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        quantize(run, tmp_path / "int8", count=64)
    assert runs.read(tmp_path / "int8").metrics["compression"]["quantize"] == "int8"


@pytest.mark.slow
def test_data_that_are_no_images_are_pruned_and_measured(
    mask_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.05)
    with trusting():
        sparse = open_run(prune(open_run(mask_run), 0.5, tmp_path / "sparse", overrides=["trainer.max_epochs=1"]))
        assert sparsity(sparse.student) == pytest.approx(0.5, abs=0.01)
        found = list(rows.measure("mask", sparse, ("eager", "onnx"), tmp_path, 100))
    assert [row.runtime for row in found] == ["eager", "onnx"] and found[0].accuracy == found[1].accuracy > 0.5
    assert all(row.memory and row.memory > 1e7 for row in found)


@pytest.mark.parametrize("module", [compress, export, measure])
def test_help_is_there_before_torch_and_names_every_choice(module: ModuleType) -> None:
    code = f"import sys; sys.argv = ['x', '--help']; import {module.__name__} as m\ntry: m.main()\n"
    code += "except SystemExit: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    names = {compress: TEACHERS, export: FORMATS, measure: rows.RUNTIMES}[module]
    assert all(name in done.stdout for name in names)
