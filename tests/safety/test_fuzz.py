"""Random values, bytes and logits: a run on tiny data or one line, never a traceback."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from kd_lightning import runs
from kd_lightning.metrics import Scores
from kd_lightning.runs.claims import damage
from kd_lightning.runs.students import load_student
from kd_lightning.train import main
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
from tests.conftest import TINY, compose, fresh_process

EXAMPLES = int(os.environ.get("KD_FUZZ", "12"))  # KD_FUZZ=500 for a night
SMALL = (*TINY, "trainer.max_steps=2", "data.train_size=128", "model.teacher_cache=off")
NO_KEYS = ("_target_", "_partial_", "resume", "trust", "teacher_stage.dir", "model.teacher_weights", "strategy")
"""Names of code and of files, which tests of their own cover."""

VALUES = st.one_of(
    st.sampled_from(["0", "-1", "1", "2", "3", "0.5", "0.0", "1e-9", "-0.1", "1.5", "nan", "inf", "-inf", "null"]),
    st.sampled_from(
        ["true", "false", "''", "abc", "[]", "{}", "[1,2]", "[0.1]", "[abc]", "{a: 1}", "1e400", "0x10", "é"]
    ),
    st.integers(-5, 5).map(str),
    st.floats(-4, 4, allow_nan=False).map(lambda x: f"{x:.3g}"),
)


def _keys() -> list[tuple[str, ...]]:
    """Return words that choose an option of a group, and a key that it has."""
    found: list[tuple[str, ...]] = []
    conf = Path(__file__).parents[2] / "conf"
    groups = {"loss": [p.stem for p in sorted((conf / "loss").glob("*.yaml"))], "scheduler": ["cosine", "multistep"]}
    groups |= {"optimizer": ["sgd", "adamw"]}
    for group, options in groups.items():
        for option in options:
            node = OmegaConf.load(conf / group / f"{option}.yaml")
            found += [(f"{group}={option}", f"{group}.{key}") for key in runs.flatten(node)]
    config = compose()
    for group in ("data", "trainer", "teacher_stage", "model"):
        found += [(f"{group}.{key}",) for key in runs.flatten(config[group])]
    found += [("seed",), ("select",), ("compile",)]
    return [words for words in found if not words[-1].endswith(NO_KEYS)]


KEYS = _keys()


@given(key=st.sampled_from(KEYS), value=VALUES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_value_of_any_key(key: tuple[str, ...], value: str, teacher_run: Path, no_pictures: None) -> None:
    out = Path(tempfile.mkdtemp(dir=teacher_run.parent))
    teacher = f"model.teacher_weights={teacher_run}"
    loss = () if key[0].startswith("loss=") else ("loss=kd",)
    words = [*SMALL, teacher, *loss, *key[:-1], f"{key[-1]}={value}", f"hydra.run.dir={out}"]
    argv, sys.argv = sys.argv, ["kd-train", *words]
    try:
        with fresh_process():
            main()
        status = 0
    except SystemExit as e:
        status = int(e.code or 0)
    finally:
        sys.argv = argv
    assert status in (0, 2, 3), words


def _mutated(data: bytes, where: float, what: bytes, how: str) -> bytes:
    i = int(where * len(data))
    if how == "cut":
        return data[:i]
    if how == "insert":
        return data[:i] + what + data[i:]
    return data[:i] + what + data[i + len(what) :]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "run"
    train(compose("loss=ce"), out)
    return out


FILES = (runs.CONFIG, runs.METRICS, runs.STUDENT, runs.LAST)


@given(
    file=st.sampled_from(FILES),
    where=st.floats(0, 1),
    what=st.binary(min_size=1, max_size=9),
    how=st.sampled_from(["cut", "insert", "put"]),
)
@settings(max_examples=8 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_bytes_of_any_file(file: str, where: float, what: bytes, how: str, finished: Path) -> None:
    """A damaged file is refused in one line, or was not needed; weights that differ are never served."""
    whole = (finished / file).read_bytes()
    changed = _mutated(whole, where, what, how)
    (finished / file).write_bytes(changed)
    try:
        if file == runs.LAST:
            problem = damage(finished / file)
            assert problem or changed[:1000] == whole[:1000] or len(changed) == len(whole)
            return
        runs.read(finished)
        load_student(finished)
        assert file != runs.STUDENT or changed == whole
    except UserError as e:
        assert len(str(e).splitlines()) == 1
    finally:
        (finished / file).write_bytes(whole)


EXTREME = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e4, -1e4, 3e38, -3e38, 88.0, -745.0])


@given(st.integers(2, 12), st.integers(1, 9), st.data())
@settings(max_examples=5 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_logits_have_scores(classes: int, samples: int, data: Any) -> None:
    rows = st.lists(EXTREME, min_size=classes, max_size=classes)
    logits = torch.tensor(data.draw(st.lists(rows, min_size=samples, max_size=samples)))
    y = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples)))
    scores = Scores(classes)
    scores.update(logits, logits.flip(1), y)
    values = {name: float(value) for name, value in scores.compute().items()}
    right = float((logits.argmax(1) == y).float().mean())
    assert values["accuracy"] == pytest.approx(right) and 0 <= values["ece"] <= 1 and values["nll"] >= 0
    json.dumps(values)
