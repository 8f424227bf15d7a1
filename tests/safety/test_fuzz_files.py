"""Random bytes in files, values in records, logits and labels. `KD_FUZZ=500` tries more; see test_fuzz.py."""

import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils._pytree import tree_flatten

from kd_lightning import losses, runs
from kd_lightning.config import build
from kd_lightning.losses.logit_method import LogitMethod
from kd_lightning.metrics import Scores
from kd_lightning.report.folders import compare_folders
from kd_lightning.report.tables import csv_text, terminal_table
from kd_lightning.runs.claims import damage
from kd_lightning.runs.students import load_student
from kd_lightning.training.run import train
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError
from tests.conftest import compose
from tests.safety.test_fuzz import EXAMPLES, FUZZ, SEED

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "run"
    train(compose("loss=ce"), out)
    return out


def _mutated(data: bytes, where: float, what: bytes, how: str) -> bytes:
    i = int(where * len(data))
    if how == "cut":
        return data[:i]
    if how == "insert":
        return data[:i] + what + data[i:]
    return data[:i] + what + data[i + len(what) :]


def _content(checkpoint: bytes) -> list[Any]:
    leaves, names = tree_flatten(torch.load(io.BytesIO(checkpoint), weights_only=True))
    return [names, *((x.dtype, x.tolist()) if isinstance(x, torch.Tensor) else x for x in leaves)]


FILES = (runs.CONFIG, runs.METRICS, runs.STUDENT, runs.LAST)


@given(
    file=st.sampled_from(FILES),
    where=st.floats(0, 1),
    what=st.binary(min_size=1, max_size=9),
    how=st.sampled_from(["cut", "insert", "put"]),
)
@seed(SEED)
@settings(FUZZ, max_examples=8 * EXAMPLES)
def test_any_bytes_of_any_file(file: str, where: float, what: bytes, how: str, finished: Path) -> None:
    """A damaged file is refused in one line, or was not needed; weights that differ are never served."""
    whole = (finished / file).read_bytes()
    changed = _mutated(whole, where, what, how)
    (finished / file).write_bytes(changed)
    try:
        if file == runs.LAST:
            if damage(finished / file) is None:
                assert how != "cut" or len(changed) == len(whole)
                same = _content(changed) == _content(whole)
                assert same, "it loads, and holds other values"
            return
        runs.read(finished)
        load_student(finished)
        assert file != runs.STUDENT or changed == whole
    except UserError as e:
        assert len(str(e).splitlines()) == 1
    finally:
        (finished / file).write_bytes(whole)


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _paths(child, (*path, key))


@given(data=st.data(), value=st.sampled_from([None, "", "x", 0, -1, 1e300, True, [], {}, [1], {"a": 1}, "gone"]))
@seed(SEED)
@settings(FUZZ, max_examples=4 * EXAMPLES)
def test_any_value_in_metrics(data: Any, value: Any, finished: Path) -> None:
    """Records of another origin: read and compared, or refused in one line."""
    whole = (finished / runs.METRICS).read_text()
    metrics = copy.deepcopy(json.loads(whole))
    *parents, last = data.draw(st.sampled_from(sorted(_paths(metrics), key=str)))
    node = metrics
    for key in parents:
        node = node[key]
    if value == "gone":
        del node[last]
    else:
        node[last] = value
    (finished / runs.METRICS).write_text(json.dumps(metrics))
    try:
        comparison = compare_folders([finished])
        terminal_table(comparison)
        csv_text(comparison)
        load_student(finished)
    except UserError as e:
        assert len(str(e).splitlines()) == 1
    finally:
        (finished / runs.METRICS).write_text(whole)


EXTREME = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e4, -1e4, 3e38, -3e38, 88.0, -745.0])


def _drawn(data: Any, samples: int, classes: int) -> torch.Tensor:
    row = st.lists(EXTREME, min_size=classes, max_size=classes)
    return torch.tensor(data.draw(st.lists(row, min_size=samples, max_size=samples)))


@given(st.integers(2, 12), st.integers(1, 9), st.data())
@seed(SEED)
@settings(FUZZ, max_examples=5 * EXAMPLES)
def test_any_logits_have_scores(classes: int, samples: int, data: Any) -> None:
    logits = _drawn(data, samples, classes)
    y = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples)))
    scores = Scores(classes)
    scores.update(logits, logits.flip(1), y)
    values = {name: float(value) for name, value in scores.compute().items()}
    right = float((logits.argmax(1) == y).float().mean())
    assert values["accuracy"] == pytest.approx(right) and 0 <= values["ece"] <= 1 and values["nll"] >= 0
    json.dumps(values)


METHODS = [path.stem for path in sorted((CONF / "loss").glob("*.yaml")) if path.stem not in ("ctkd", "crd_kd", "dml")]


def _logit_methods() -> dict[str, LogitMethod]:
    built = {}
    for name in METHODS:
        node = OmegaConf.load(CONF / "loss" / f"{name}.yaml")
        if issubclass(getattr(losses, str(node._target_).rpartition(".")[2], object), LogitMethod):
            built[name] = build(
                OmegaConf.masked_copy(node, [k for k in node if k not in ("label_smoothing", "fusion")]), "loss"
            )
    return built


@given(st.integers(2, 12), st.integers(2, 9), st.data())
@seed(SEED)
@settings(FUZZ, max_examples=5 * EXAMPLES)
def test_any_logits_and_labels_have_a_loss(classes: int, samples: int, data: Any) -> None:
    """A scalar, or terms that are scalars; finite for logits up to 1e4 in float32."""
    name = data.draw(st.sampled_from(sorted(LOGIT_METHODS)))
    s, t = (_drawn(data, samples, classes).clamp(-1e4, 1e4) for _ in range(2))
    y = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples)))
    batch = Batch(torch.zeros(samples, 1), y, torch.arange(samples))
    told = LOGIT_METHODS[name](Outputs(s.requires_grad_()), Outputs(t), batch)
    terms = told if isinstance(told, dict) else {"loss": told}
    for value in terms.values():
        assert value.ndim == 0 and value.isfinite(), (name, s, t, y)


LOGIT_METHODS = _logit_methods()
