"""Run directories without a training: a configuration and metrics as `kd_lightning.train` writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from kd_lightning import runs
from tests.conftest import compose

_COMPOSED: dict[tuple[str, ...], DictConfig] = {}


@pytest.fixture
def fake_run(tmp_path: Path) -> Callable[..., Path]:
    """`fake_run(0.9, "loss=kd", "seed=1")`: a finished run with that test accuracy below `tmp_path/runs`.

    Accuracy None: it did not finish; "diverged": it diverged. `val` is the validation accuracy, None without a split.
    """

    def make(accuracy: Any, *overrides: str, val: float | None = 0.9, **metrics: Any) -> Path:
        path = tmp_path / "runs" / str(len(list((tmp_path / "runs").glob("*"))))
        path.mkdir(parents=True)
        if overrides not in _COMPOSED:
            _COMPOSED[overrides] = compose(*overrides)
        runs.write_config(path, _COMPOSED[overrides])
        if accuracy is None:
            return path
        if accuracy == "diverged":
            runs.write_diverged(path, {"epoch": 1, "step": 3})
            return path
        test = {"accuracy": accuracy, "nll": 1.0, "ece": 0.1}
        scores: dict[str, Any] = {"epoch": 1, "test": test} | ({} if val is None else {"val": {"accuracy": val}})
        values: dict[str, Any] = {"select": "last", "student": {"parameters": 10_000, "macs": 50_000, "last": scores}}
        values |= {"epochs": 1, "seconds": 2.0, "precision": "32-true", "accelerator": "cpu"}
        values |= {"device": "test", "git_revision": "abc"}
        if "loss=ce" not in overrides:
            test["agreement"] = 0.8
            values["teacher"] = {"parameters": 90_000, "macs": 500_000, "test": {"accuracy": 0.95}}
        (path / runs.STUDENT).write_bytes(b"weights")  # metrics.json has its checksum
        runs.write_metrics(path, values | metrics)
        return path

    return make
