"""Arguments of Lightning's Trainer do in a run what Lightning's documentation says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from kd_lightning import runs
from kd_lightning.training.run import train
from kd_lightning.training.trainer import resolve_trainer
from tests.conftest import Finished, compose

pytestmark = pytest.mark.usefixtures("no_pictures")
Cli = Callable[..., Finished]


class Seen(pl.Callback):
    """Remembers the training batches."""

    batches: list[torch.Tensor] = []  # noqa: RUF012

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        Seen.batches.append(batch.x.clone())


def test_a_key_may_take_the_value_of_another_group() -> None:
    assert resolve_trainer(compose("trainer.max_epochs=${seed}", "seed=3").trainer).max_epochs == 3


def test_fast_dev_run_keeps_nothing_and_trains_no_teacher(cli: Cli) -> None:
    done = cli("trainer.fast_dev_run=true")
    assert done.status == 0 and "nothing is kept" in done.out and done.err == ""
    assert not list(Path().rglob("*.ckpt")) and not list(Path().rglob("metrics.json"))
    assert not runs.below(Path("outputs"))


def test_overfit_batches_shows_the_same_views_each_epoch(tmp_path: Path) -> None:
    Seen.batches = []
    seen = f"+callbacks.seen={{_target_: {__name__}.Seen}}"
    train(compose("loss=kd", "trainer.overfit_batches=2", "trainer.max_epochs=3", seen), tmp_path / "run")
    assert len(Seen.batches) == 6
    first = Seen.batches[:2]
    assert all(torch.equal(a, b) for k in (2, 4) for a, b in zip(first, Seen.batches[k : k + 2], strict=True))


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["trainer.max_steps=3", "trainer.max_epochs=5"], 3),
        (["trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"], 2),
        (["trainer.limit_train_batches=0.4"], 2),
        (["+trainer.min_epochs=1"], 5),
        (["+trainer.val_check_interval=2"], 5),
        (["+trainer.reload_dataloaders_every_n_epochs=1"], 5),
        (["trainer.max_time=00:01:00:00"], 5),
        (["trainer.precision=bf16-true"], 5),
        (["trainer.precision=64-true"], 5),
        (["trainer.accumulate_grad_batches=2"], 3),
        (["trainer.detect_anomaly=true", "trainer.profiler=pytorch"], 5),
        (["trainer.gradient_clip_val=0.5", "trainer.gradient_clip_algorithm=value"], 5),
    ],
)
def test_a_key_does_what_it_says(words: list[str], steps: int, tmp_path: Path) -> None:
    train(compose("loss=ce", *words), tmp_path / "run")
    assert torch.load(tmp_path / "run" / runs.LAST, weights_only=True)["global_step"] == steps
    assert runs.is_finished(tmp_path / "run")


@pytest.mark.parametrize("preset", ["smoke", "overfit", "profile"])
def test_debug_presets(preset: str, cli: Cli) -> None:
    done = cli("debug=" + preset, "trainer.max_epochs=2")
    assert done.status == 0, done.err
    assert bool(list(Path("outputs/train").rglob("fit-profile.txt"))) == (preset == "profile")
    assert not Path("outputs/teachers").exists() or not runs.below(Path("outputs/teachers"))
