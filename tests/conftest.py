"""Tiny runs on real digits, in this process: importing torch anew for each would take most of the time."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kd_lightning.config import CONF_DIR
from kd_lightning.train import main
from kd_lightning.training.run import train
from kd_lightning.utils.quiet import quiet
from kd_lightning.utils.trust import trusting

TINY = (
    "data=digits",
    "data.train_size=320",
    "data.batch_size=64",
    "model.teacher=resnet8",
    "model.student=resnet8",
    "optimizer.lr=0.05",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "teacher_stage.max_epochs=3",
)
"""Overrides with which an epoch takes a fraction of a second."""


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Such small nets gain nothing from threads, and wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def as_in_a_run() -> None:
    """pytest makes warnings errors anew for each test; those that every run expects are not."""
    quiet()


@pytest.fixture(autouse=True, scope="session")
def own_code_is_trusted() -> Iterator[None]:
    """What a test composes itself is not from a file; commands decide for themselves, see `utils.trust`."""
    with trusting():
        yield


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the figures for TensorBoard: they take longer than a tiny training."""
    monkeypatch.setattr("kd_lightning.training.record.try_pictures", lambda *_: None)


def compose(*overrides: str) -> DictConfig:
    """The configuration that `python -m kd_lightning.train` would make of TINY and `overrides`."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra.compose("train", overrides=[*TINY, *overrides])


class Finished(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Runs `kd-train` with what a user would type, in an empty folder; `cli(*words, tiny=False)` without TINY."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, tiny: bool = True) -> Finished:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["kd-train", *(TINY if tiny else ()), *words])
        with fresh_process():
            try:
                main()
                status = 0
            except SystemExit as e:
                status = int(e.code or 0) if not isinstance(e.code, str) else 1
        return Finished(status, *capfd.readouterr())

    return run


@contextmanager
def fresh_process() -> Iterator[None]:
    """What Hydra and we leave in a process that usually ends then: singletons, environment, handlers of the log."""
    environ, before, path = dict(os.environ), list(logging.root.handlers), list(sys.path)
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        for handler in [h for h in logging.root.handlers if h not in before]:
            logging.root.removeHandler(handler)
            handler.close()
        logging.root.handlers[:] = before
        os.environ.clear()
        os.environ.update(environ)
        sys.path[:] = path


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a resnet8 that knows the digits well enough to teach."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train(compose("loss=ce", "trainer.max_epochs=4"), out)
    return out


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


def environment() -> dict[str, str]:
    """For processes of their own: one thread, and this checkout whatever the folder."""
    return {"PYTHONPATH": str(Path(__file__).parents[1])} | os.environ | {"OMP_NUM_THREADS": "1"}
