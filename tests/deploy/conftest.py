"""Students on digits, as the deployment commands meet them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kd_lightning import runs
from kd_lightning.deploy.files.formats import FORMATS
from kd_lightning.deploy.files.write import export
from kd_lightning.deploy.steps import quantize
from kd_lightning.evaluation.opened import OpenedRun, open_run
from kd_lightning.training.run import train
from kd_lightning.utils.trust import trusting
from tests.conftest import Finished, compose


@pytest.fixture(scope="session")
def run(distilled: Path) -> OpenedRun:
    return open_run(distilled)


@pytest.fixture(scope="session")
def int8_run(run: OpenedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`distilled`, quantized after training."""
    return quantize(run, tmp_path_factory.mktemp("int8") / "run", count=128)


@pytest.fixture(scope="session")
def capricious_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("capricious") / "run"
    with trusting():
        train(compose("loss=ce", "model.student=tests.deploy.nets.Capricious"), out)
    return out


@pytest.fixture(scope="session")
def mask_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on data whose inputs are a dictionary of two tensors."""
    out = tmp_path_factory.mktemp("mask") / "run"
    cfg = compose("loss=ce", "model.student=tests.deploy.nets.MaskNet", "trainer.max_epochs=2")
    cfg.data = {"_target_": "tests.deploy.nets.MaskedDigits", "batch_size": 64}
    with trusting():
        train(cfg, out)
    return out


@pytest.fixture(scope="session")
def written(run: OpenedRun, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`written("onnx", fp16=True)`: such a file of `run`, for any number of samples; each kind is written once."""
    folder, known = tmp_path_factory.mktemp("files"), {}

    def write(form: str, **how: Any) -> Path:
        key = json.dumps([form, how])
        if key not in known:
            path = folder / f"{len(known)}{FORMATS[form].suffix}"
            known[key], _ = export(run, form, path, dynamic_batch=True, **how)
        return known[key]

    return write


@pytest.fixture
def assert_refused(
    distilled: Path,
    int8_run: Path,
    capricious_run: Path,
    mask_run: Path,
    tmp_path: Path,
    command: Callable[..., Finished],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[ModuleType, list[str], str], None]:
    """`assert_refused(module, words, message)`: the command ends in one line with `message`, and leaves nothing.

    Words in capitals stand for runs: RUN, INT8, CAPRICIOUS, MASK, UNFINISHED, and EMPTY and FULL, which are none.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("EMPTY", "UNFINISHED", "FULL"):
        (tmp_path / name).mkdir()
    (tmp_path / "FULL" / "file").write_text("mine")
    (tmp_path / "UNFINISHED" / runs.CONFIG).write_text((distilled / runs.CONFIG).read_text())
    places = {"RUN": distilled, "INT8": int8_run, "CAPRICIOUS": capricious_run, "MASK": mask_run}

    def check(module: ModuleType, words: list[str], message: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        words = [*words, *["--trust"] * bool({"CAPRICIOUS", "MASK"} & set(words))]
        done = command(module, *(places.get(word, word) for word in words))
        assert done.status == 2 and re.search(message, done.err), done
        assert done.err.count("\n") == 1, done.err
        assert sorted(tmp_path.rglob("*")) == before

    return check
