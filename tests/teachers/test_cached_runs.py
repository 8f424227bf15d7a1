"""The teacher cache in whole runs: equal to the live teacher, shared by a sweep, filled ahead."""

from pathlib import Path

import pytest
import torch

from kd_lightning import runs
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.training.fill import fill
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
from tests.conftest import compose

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many training images each call of the live teacher was about."""
    counts = []
    call = LiveTeacher.__call__

    def counting(self, batch):
        counts.append(len(batch.y))
        return call(self, batch)

    monkeypatch.setattr(LiveTeacher, "__call__", counting)
    return counts


def run(out: Path, teacher: Path, *overrides: str) -> dict:
    train(compose(f"model.teacher_weights={teacher}", *overrides), out)
    return torch.load(out / runs.LAST, weights_only=True)["state_dict"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_cached_run_equals_a_live_one(tmp_path, teacher_run, precision):
    words = (f"trainer.precision={precision}", "trainer.max_epochs=2")
    live = run(tmp_path / "live", teacher_run, "model.teacher_cache=off", *words)
    cold = run(tmp_path / "cold", teacher_run, f"model.teacher_cache={tmp_path / 'cache'}", *words)
    warm = run(tmp_path / "warm", teacher_run, f"model.teacher_cache={tmp_path / 'cache'}", *words)
    assert all(torch.equal(live[k], cold[k]) for k in live), "a cold epoch is asked in the batches of the training"
    assert all(torch.equal(live[k], warm[k]) for k in live), "fp32 storage loses nothing"


def test_a_sweep_asks_the_teacher_once(tmp_path, teacher_run, asked):
    where = f"model.teacher_cache={tmp_path / 'cache'}"
    run(tmp_path / "a", teacher_run, where)
    assert sum(asked) == 320
    asked.clear()
    for i, override in enumerate(("loss.temperature=8", "loss.alpha=0.9", "model.student=resnet14")):
        run(tmp_path / str(i), teacher_run, where, override)
    assert asked == [], "an epoch that is there is not looked up step by step"
    run(tmp_path / "b", teacher_run, where, "seed=1")
    assert 0 < sum(asked) < 320, "another seed shows other views, some of which were asked about"


def test_seeds_with_one_view_seed_share_the_answers(tmp_path, teacher_run, asked):
    where = (f"model.teacher_cache={tmp_path / 'cache'}", "data.view_seed=5")
    first = run(tmp_path / "a", teacher_run, *where, "seed=5")
    assert sum(asked) == 320
    asked.clear()
    second = run(tmp_path / "b", teacher_run, *where, "seed=1")
    assert asked == []
    assert not all(torch.equal(first[k], second[k]) for k in first)
    plain = run(tmp_path / "c", teacher_run, where[0], "seed=5")
    assert all(torch.equal(first[k], plain[k]) for k in first), "no view seed is that of the run"


@pytest.mark.parametrize(
    ("words", "images"),
    [
        ("trainer.limit_train_batches=2", 2 * 2 * 64),
        ("trainer.max_steps=7", 7 * 64),
        ("trainer.max_steps=2 trainer.accumulate_grad_batches=3", 5 * 64),  # which are the first epoch
    ],
)
def test_the_teacher_is_asked_about_no_more_than_is_shown(tmp_path, teacher_run, asked, words, images):
    where = f"model.teacher_cache={tmp_path / 'cache'}"
    run(tmp_path / "a", teacher_run, where, "trainer.max_epochs=2", *words.split())
    assert images - 64 < sum(asked) <= images, "some views of a second epoch are known"


def test_filled_ahead_nothing_is_left_to_ask(tmp_path, teacher_run, asked):
    where = f"model.teacher_cache={tmp_path / 'cache'}"
    fill(compose(f"model.teacher_weights={teacher_run}", where))
    assert sum(asked) == 320 * 9
    asked.clear()
    run(tmp_path / "a", teacher_run, where, "seed=3")
    assert asked == []


def test_a_full_disk_is_told_before_training(tmp_path, teacher_run, monkeypatch, capsys):
    little = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("kd_lightning.teachers.cache.storage.shutil.disk_usage", lambda _: little)
    with pytest.raises(UserError, match=r"teacher_cache=.*the full table takes"):
        run(tmp_path / "a", teacher_run, f"model.teacher_cache={tmp_path / 'cache'}")
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "b", teacher_run, "model.teacher_cache=auto")
    assert "the teacher is run live" in capsys.readouterr().out


def test_a_full_memory_is_told_before_training(tmp_path, teacher_run, monkeypatch):
    monkeypatch.setattr("kd_lightning.teachers.cache.storage.free_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"teacher_cache=memory: the full table takes .* main memory has .* or off"):
        run(tmp_path / "a", teacher_run, "model.teacher_cache=memory")


def test_each_storage_type_has_its_own_table(tmp_path, teacher_run, asked):
    where, states = f"model.teacher_cache={tmp_path / 'cache'}", {}
    for storage in ("fp32", "fp16", "auto"):
        asked.clear()
        states[storage] = run(tmp_path / storage, teacher_run, where, f"model.teacher_cache_dtype={storage}")
        assert sum(asked) == (0 if storage == "auto" else 320), "fp32 is what auto takes for a teacher in fp32"
    sizes = {p.parent.name.rpartition("-")[2]: p.stat().st_size for p in (tmp_path / "cache").rglob("views.bin")}
    assert sizes == {"fp32": 320 * 9 * (4 * 10 + 4), "fp16": 320 * 9 * (2 * 10 + 4)}
    assert all(torch.equal(states["fp32"][k], states["auto"][k]) for k in states["auto"])
    with pytest.raises(UserError, match="teacher_cache_dtype must be one of auto, fp16, fp32, got 'bf16'"):
        run(tmp_path / "bad", teacher_run, where, "model.teacher_cache_dtype=bf16")
    assert not (tmp_path / "bad").exists()


def test_pictures_without_numbers_are_filled_epoch_by_epoch(tmp_path, teacher_run, asked):
    words = (f"model.teacher_cache={tmp_path / 'cache'}", "data.augment.cutout=2", "trainer.max_epochs=2")
    fill(compose(f"model.teacher_weights={teacher_run}", *words))
    assert sum(asked) == 2 * 320
    asked.clear()
    run(tmp_path / "a", teacher_run, *words, "loss.temperature=8")
    assert asked == []
    run(tmp_path / "b", teacher_run, *words, "seed=1")
    assert sum(asked) == 2 * 320, "another seed shows other pictures"


def test_what_cannot_be_filled_is_said(teacher_run):
    with pytest.raises(UserError, match="teacher_cache=off"):
        fill(compose("model.teacher_cache=off"))
