"""A distilled run to look at, and the commands as a user types them."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from kd_lightning.train import train
from tests.conftest import Finished, compose, fresh_process


@pytest.fixture(scope="session")
def distilled(teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a resnet8 distilled from `teacher_run`, whose best epoch may differ from its last."""
    out = tmp_path_factory.mktemp("distilled") / "run"
    train(compose(f"model.teacher_weights={teacher_run}", "model.teacher_cache=off", "trainer.max_epochs=2"), out)
    return out


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """`command(kd_lightning.predict, *words)`: its exit status and what it printed, at 80 columns."""

    def run(module: ModuleType, *words: object) -> Finished:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
        with fresh_process():
            monkeypatch.setenv("COLUMNS", "80")
            try:
                module.main()
                status = 0
            except SystemExit as e:
                status = int(e.code or 0)
        return Finished(status, *capfd.readouterr())

    return run
