"""Run directories without a training: a configuration and metrics as `kd_lightning.train` writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from tests.conftest import compose

_COMPOSED: dict[tuple[str, ...], DictConfig] = {}


@pytest.fixture
def fake_run(tmp_path: Path) -> Callable[..., Path]:
    """`fake_run(0.9, "loss=kd", "seed=1")`: a finished run with that test accuracy below `tmp_path/runs`."""

    def make(accuracy: float | None, *overrides: str, best: bool = True, **metrics: Any) -> Path:
        path = tmp_path / "runs" / str(len(list((tmp_path / "runs").glob("*"))))
        path.mkdir(parents=True)
        if overrides not in _COMPOSED:
            _COMPOSED[overrides] = compose(*overrides)
        (path / runs.CONFIG).write_text(OmegaConf.to_yaml(_COMPOSED[overrides], resolve=True))
        if accuracy is None:
            return path  # it did not finish
        test = {"test": {"accuracy": accuracy, "nll": 1.0, "ece": 0.1}}
        values = {"schema": runs.SCHEMA, "student": {"parameters": 10_000, "macs": 50_000, "last": test}}
        values |= {
            "epochs": 1,
            "seconds": 2.0,
            "precision": "32-true",
            "accelerator": "cpu",
            "device": "test",
            "git_revision": "abc",
        }
        if best:
            values["student"] |= {"best": test}
        if "loss=ce" not in overrides:
            test["test"]["agreement"] = 0.8
            values["teacher"] = {"parameters": 90_000, "macs": 500_000, "test": {"accuracy": 0.95}}
        (path / runs.METRICS).write_text(json.dumps(values | metrics))
        return path

    return make
