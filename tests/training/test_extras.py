"""Loggers and callbacks of the user's: added to ours, never dropped, and refused in one line."""

import csv
import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as pl
import pytest
from omegaconf import OmegaConf

from kd_lightning import runs
from kd_lightning.training.extras import check_extras
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import trusting
from tests.conftest import Finished, compose

pytestmark = pytest.mark.usefixtures("no_pictures")
Cli = Callable[..., Finished]


class Counter(pl.Callback):
    """Counts training batches."""

    batches = 0

    def on_train_batch_end(self, *_: object) -> None:
        Counter.batches += 1


def test_several_loggers_write_to_the_run_directory(tmp_path: Path) -> None:
    train(compose("loss=ce", "logger=[csv,tensorboard]"), tmp_path / "run")
    with open(tmp_path / "run/csv/version_0/metrics.csv") as f:
        rows = list(csv.DictReader(f))
    assert {"train/loss", "val/accuracy", "train/lr"} <= set(rows[0])
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_none_writes_no_logs(tmp_path: Path) -> None:
    train(compose("loss=ce", "logger=none"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("events*")) and runs.is_finished(tmp_path / "run")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named(name: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *rest: None if n == name else find(n, *rest))
    done = cli("loss=ce", f"logger={name}")
    assert done.status == 2 and done.err.strip() == (
        f"error: logger.{name} needs the package {name}, which is not installed: pip install {name}"
    )


def test_early_stopping_ends_a_training(tmp_path: Path) -> None:
    cfg = compose(
        *("loss=ce", "trainer.max_epochs=6", "callbacks=early_stopping"),
        *("callbacks.early_stopping.min_delta=5.0", "callbacks.early_stopping.patience=1"),
    )
    assert train(cfg, tmp_path / "run")["epochs"] == 2
    assert (tmp_path / "run" / runs.LAST).is_file()  # ours ran, too


@pytest.mark.parametrize(
    "group, words, told",
    [
        ("callbacks", {"min_delta": ""}, "callbacks.early_stopping.min_delta must be a number, got ''"),
        ("callbacks", {"patience": 2.5}, "callbacks.early_stopping.patience must be a whole number, got 2.5"),
        ("callbacks", {"stopping_threshold": "x"}, "must be a number or null, got 'x'"),
        ("callbacks", {"strict": 1}, "callbacks.early_stopping.strict must be true or false, got 1"),
        ("logger", {"name": [1]}, r"logger.csv.name must be a text or null, got \[1\]"),
        ("callbacks", {"min_delta": 1, "patience": 3, "stopping_threshold": None}, None),
    ],
)
def test_a_value_of_another_type_is_refused_before_training(group: str, words: dict, told: str | None) -> None:
    """Lightning keeps some unseen, and fails on them at the end of the first epoch."""
    name = {"callbacks": "early_stopping", "logger": "csv"}[group]
    cfg = compose("loss=ce", f"{group}={name}")
    OmegaConf.update(cfg, f"{group}.{name}", words, merge=True, force_add=True)
    with pytest.raises(UserError, match=told) if told else nullcontext(), trusting():
        check_extras(cfg, "cpu")


def test_a_callback_of_ones_own_is_added(tmp_path: Path) -> None:
    Counter.batches = 0
    train(compose("loss=ce", f"+callbacks.mine={{_target_: {__name__}.Counter}}"), tmp_path / "run")
    assert Counter.batches == 5


def test_callbacks_are_for_the_student_not_for_its_teacher(tmp_path: Path) -> None:
    Counter.batches = 0
    cfg = compose(f"+callbacks.mine={{_target_: {__name__}.Counter}}", f"teacher_stage.dir={tmp_path / 'teachers'}")
    train(cfg, tmp_path / "run")
    assert Counter.batches == 5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["+callbacks.mine={_target_: kd_lightning.losses.KD}"], "must be a lightning.pytorch.Callback, got KD"),
        (["+callbacks.mine={monitor: val}"], "callbacks.mine must name a class"),
        (["+callbacks.mine={_target_: no.such.Thing}"], "callbacks.mine"),
        (["callbacks=early_stoping"], "did you mean 'early_stopping'?"),
        (["callbacks=[ema,early_stoping]"], "callbacks must be one of"),
        (["callbacks.ema.decay=0.9"], "unknown key 'callbacks.ema.decay'; it comes with callbacks=ema"),
        (["callbacks.mine.patience=3"], "is added by +callbacks.mine={_target_: my_package.Mine}"),
        (["callbacks=ema", "callbacks.ema.decay=abc"], "callbacks.ema.decay must be a number, got 'abc'"),
        (["trainer.min_epochs=3"], "unknown key 'trainer.min_epochs'; the Trainer has it, but it is not listed: +"),
        (["trainer.logger=csv"], "trainer.logger: loggers have a group"),
        (["+trainer.min_epochs=abc"], "trainer.min_epochs must be a whole number or null"),
        (["trainer.deterministic=yes"], "trainer.deterministic must be true or false or 'warn'"),
        (["trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch must be a whole number >= 1"),
        (["+trainer.val_check_interval=0"], "trainer.val_check_interval must be a number > 0"),
        (["+trainer.val_check_interval=1000"], "is more than the 5 batches of an epoch"),
        (["+trainer.val_check_interval=4", "trainer.limit_train_batches=2"], "is more than the 2 batches of an epoch"),
        (["+trainer.val_check_interval=6", "data.train_size=321"], "is more than the 5 batches of an epoch"),
        (["callbacks=lr_monitor", "logger=none"], "no logger"),
        (["callbacks=early_stopping", "data.val_size=0"], "`val/accuracy` which is not available"),
        (["callbacks=early_stopping", "callbacks.early_stopping.mode=up"], "callbacks.early_stopping"),
        (["+callbacks.a={_target_: lightning.pytorch.callbacks.EMAWeightAveraging}"], "use callbacks=ema"),
        (["+logger.mine={_target_: no.such.Logger}"], "logger.mine._target_"),
        (["+trainer.callbacks=[]"], "trainer.callbacks: callbacks have a group of their own"),
        (["+trainer.logger={_target_: lightning.pytorch.loggers.CSVLogger}"], "trainer.logger: loggers have a group"),
        (["+trainer.barebones=true"], "trainer.barebones: "),
        (["+trainer.max_epoch=3"], "did you mean 'max_epochs'?"),
        (["trainer.max_time=5"], "trainer.max_time must be DD:HH:MM:SS"),
        (["trainer.precision=true"], "trainer.precision must be one of"),
        (["trainer.precision=16-mixed"], "needs a GPU"),
        (["trainer.fast_dev_run=-1"], "trainer.fast_dev_run must be a whole number >= 0"),
        (["loss.label_smoothing=1.5"], "loss.label_smoothing must be a number >= 0 and <= 1"),
    ],
)
def test_what_nothing_would_read_is_one_line(words: list[str], told: str, cli: Cli) -> None:
    done = cli("loss=ce", *words)
    assert done.status == 2 and told in done.err and done.err.count("\n") == 1, done.err
    assert not Path("outputs/train").exists() or not runs.below(Path("outputs/train"))
