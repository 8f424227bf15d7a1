"""A loss that is no number ends the run, and is told."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kd_lightning import runs
from tests.conftest import Finished

STEEP = ("loss=ce", "optimizer.lr=1e12", "data.batch_size=32")


def strict(path: Path) -> dict:
    """Read JSON as the standard has it, without NaN."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_diverged_run_ends_with_status_3_and_says_where(cli: Callable[..., Finished], tmp_path: Path) -> None:
    done = cli(*STEEP, "hydra.run.dir=r")
    assert done.status == 3 and "done in" not in done.out
    for word in ("nan or infinite", "epoch 0", "step ", "lr ", "loss nan", "optimizer.lr"):
        assert word in done.err
    metrics = strict(tmp_path / "r" / "metrics.json")
    assert metrics["diverged"] and metrics["step"] > 0 and not runs.is_finished(tmp_path / "r")
    (entry,) = strict(tmp_path / "r" / "nonfinite.json")  # type: ignore[misc]
    assert len(entry["indices"]) == len(entry["views"]) == 32 and entry["step"] == metrics["step"]


def test_it_is_found_in_a_window_that_is_read_once(
    cli: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a GPU: the step is the first bad one, although it is read later."""
    assert cli(*STEEP, "hydra.run.dir=each").status == 3
    from kd_lightning.training import nonfinite

    monkeypatch.setattr(nonfinite, "is_read_at_once", lambda device: False)
    assert cli(*STEEP, "hydra.run.dir=window").status == 3
    each, window = (strict(tmp_path / name / "nonfinite.json") for name in ("each", "window"))
    assert each == window


def test_a_student_that_its_last_step_destroys_is_told(cli: Callable[..., Finished], teacher_run: Path) -> None:
    """No loss was infinite, and the histogram of what the student then says was a traceback; found by the fuzz."""
    steep = ("loss=fsp", "loss.alpha=50", "loss.ce_weight=0")
    words = ("data.train_size=128", "model.teacher_cache=off", "trainer.max_steps=2")
    done = cli(f"model.teacher_weights={teacher_run}", *steep, *words)
    assert done.status == 3 and "not" in done.err and "Traceback" not in done.err, done


def test_a_teacher_that_diverged_is_not_kept_as_finished(cli: Callable[..., Finished], tmp_path: Path) -> None:
    words = ("teacher_stage.optimizer.lr=1e12", "data.batch_size=32", "hydra.run.dir=r")
    assert cli(*words).status == 3
    (teacher,) = [p for p in (tmp_path / "outputs" / "teachers").iterdir() if p.is_dir()]
    assert not runs.is_finished(teacher) and not (teacher / runs.STUDENT).exists()
    assert cli(*words).status == 3, "and it is not taken the second time"


class Trap(nn.Module):
    """A network whose answer to the batch number `at`, counted from 1, is not finite."""

    def __init__(self, num_classes: int, at: int = 3, statistics: bool = True) -> None:
        super().__init__()
        self.norm, self.linear, self.at = nn.BatchNorm2d(3), nn.Linear(3, num_classes), at
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            if self.calls == self.at:
                x = x * float("nan")
        return self.linear(self.norm(x).mean((2, 3)))


TRAP = ("loss=ce", f"model.student={__name__}.Trap", "trainer.max_epochs=2")


def test_a_batch_is_left_out_where_that_is_asked_for(cli: Callable[..., Finished], tmp_path: Path) -> None:
    done = cli(*TRAP, "trainer.skip_nonfinite=1", "hydra.run.dir=r")
    assert done.status == 0, done.err
    assert "left out" in done.out
    (entry,) = strict(tmp_path / "r" / "nonfinite.json")  # type: ignore[misc]
    assert entry["skipped"] and entry["step"] == 3
    assert strict(tmp_path / "r" / "metrics.json")["train"]["loss"] > 0
    weights = torch.load(tmp_path / "r" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(v.isfinite().all() for v in weights.values()), "running statistics, too"


def test_a_step_of_several_batches_is_left_out_as_a_whole(cli: Callable[..., Finished], tmp_path: Path) -> None:
    """The bad batch is the first of two; the step is decided after the second."""
    done = cli(*TRAP, "trainer.skip_nonfinite=1", "trainer.accumulate_grad_batches=2", "hydra.run.dir=r")
    assert done.status == 0 and "left out" in done.out, done
    (entry,) = strict(tmp_path / "r" / "nonfinite.json")  # type: ignore[misc]
    assert entry["skipped"] and entry["batch"] == 2
    metrics = strict(tmp_path / "r" / "metrics.json")
    assert metrics["train"]["loss"] > 0 and 0 < metrics["images_seen"] < metrics["labels"] * 2


def test_more_than_that_ends_the_run(cli: Callable[..., Finished], tmp_path: Path) -> None:
    done = cli(*TRAP, "hydra.run.dir=r")
    assert done.status == 3 and "step 3" in done.err


def test_scores_that_are_no_numbers_end_a_run_whose_losses_were(cli: Callable[..., Finished], tmp_path: Path) -> None:
    """The last step makes the weights so large that validation overflows."""
    words = ("optimizer.lr=1e38", "trainer.max_epochs=1", "data.batch_size=320", "optimizer.weight_decay=0")
    assert cli("loss=ce", *words, "hydra.run.dir=r").status == 3
    assert strict(tmp_path / "r" / "metrics.json")["diverged"] and not (tmp_path / "r" / runs.STUDENT).exists()


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`Trap` is found by its dotted path whatever the folder."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    yield


def test_a_sweep_goes_on_after_a_diverged_run(cli: Callable[..., Finished], tmp_path: Path) -> None:
    done = cli("-m", "loss=ce", "data.batch_size=32", "optimizer.lr=1e12,0.05", "hydra.sweep.dir=s")
    assert done.status == 3
    assert runs.diverged(tmp_path / "s/0_lr1e+12") and runs.is_finished(tmp_path / "s/1_lr0.05")
    assert "baseline" in done.out and "report: s/comparison.html" in done.out  # the other run is compared
