"""`model.teacher_weights=auto`: a teacher is trained once for a recipe, whoever asks for it and however often."""

import threading
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from kd_lightning import runs
from kd_lightning.config import build
from kd_lightning.models import create_model
from kd_lightning.training import teacher_stage as stage
from kd_lightning.training.build import build_experiment
from kd_lightning.training.run import train
from kd_lightning.training.teachers import teacher_specs
from kd_lightning.utils.checks import UserError
from tests.conftest import compose

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def auto(tmp_path: Path) -> Any:
    def auto(*overrides: str) -> Any:
        return compose(f"teacher_stage.dir={tmp_path / 'teachers'}", *overrides)

    return auto


class Crash(Exception):
    """A machine that fails."""


def folders(tmp_path: Path) -> list[Path]:
    return sorted(p for p in (tmp_path / "teachers").iterdir() if p.is_dir())


def test_trained_once_then_reused(auto: Any, tmp_path: Path, capfd: Any) -> None:
    first = train(auto(), tmp_path / "a")
    [folder] = folders(tmp_path)
    assert "trained first, once, for 3 epochs" in capfd.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    second = train(auto("loss.temperature=4", "seed=1", "trainer.max_epochs=2"), tmp_path / "b")
    assert "trained before" in capfd.readouterr().out
    assert folders(tmp_path) == [folder] and {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    views = [metrics["teacher"].pop("train_views") for metrics in (first, second)]
    assert views[0] != views[1], "another seed shows other views"
    assert first["teacher"] == second["teacher"]  # its accuracy on val and test, its size
    own = runs.read(folder).student
    assert own["val"]["accuracy"] == first["teacher"]["val"]["accuracy"]
    assert own["test"]["nll"] == pytest.approx(first["teacher"]["test"]["nll"])


@pytest.mark.parametrize(
    "change, same",
    [
        ("teacher_stage.max_epochs=4", False),
        ("teacher_stage.optimizer.lr=0.2", False),
        ("teacher_stage.seed=1", False),
        ("teacher_stage.label_smoothing=0.1", False),
        ("teacher_stage.label_smoothing=0", True),
        ("model.teacher=resnet14", False),
        ("model.teacher_kwargs={}", True),
        ("data.augment.pad=0", False),
        ("data.split_seed=1", False),
        ("data.normalize.mean=[0,0,0]", False),
        ("data.batch_size=32", False),
        ("seed=5", True),
        ("loss.temperature=8", True),
        ("optimizer.lr=0.3", True),
        ("model.student=resnet14", True),
        ("trainer.max_epochs=7", True),
        ("trainer.log_every_n_steps=1", True),
        ("trainer.enable_progress_bar=true", True),
    ],
)
def test_another_recipe_is_another_folder(change: str, same: bool, auto: Any) -> None:
    def folder(*overrides: str) -> Path:
        cfg = auto(*overrides)
        [spec] = teacher_specs(cfg.model)
        return stage.teacher_folder(cfg, spec, build(cfg.data, "data"))

    assert (folder(change) == folder()) is same


def test_a_teacher_may_learn_smoothed_labels(auto: Any) -> None:
    cfg = auto("teacher_stage.label_smoothing=0.1", "loss.label_smoothing=0.2")
    [spec] = teacher_specs(cfg.model)
    assert stage.stage_config(cfg, spec, build(cfg.data, "data")).loss.label_smoothing == 0.1
    cfg = OmegaConf.create(OmegaConf.to_container(cfg))
    del cfg.teacher_stage.label_smoothing  # as in a run of an older version, which goes on
    assert stage.stage_config(cfg, spec, build(cfg.data, "data")).loss.label_smoothing == 0
    stage.check_stage(cfg, spec, build(cfg.data, "data"))
    with pytest.raises(UserError, match=r"teacher_stage\.label_smoothing must be a number >= 0 and <= 1, got 2"):
        build_experiment(auto("teacher_stage.label_smoothing=2"))


@pytest.mark.parametrize("group", ["model", "teacher_stage", "trainer", "loss"])
def test_a_key_added_to_the_configuration_changes_no_teacher(group: str, auto: Any) -> None:
    def folder(cfg: Any) -> Path:
        [spec] = teacher_specs(cfg.model)
        return stage.teacher_folder(cfg, spec, build(cfg.data, "data"))

    cfg = OmegaConf.create(OmegaConf.to_container(auto()))  # without a schema, which a later version will change
    before = folder(cfg)
    cfg[group].added_later = 3
    assert folder(cfg) == before


def test_two_at_once_train_one(auto: Any, monkeypatch: Any) -> None:
    """The second process finds the lock held, waits, and takes what the first has trained."""
    cfg, trained, waits = auto(), [], threading.Event()
    monkeypatch.setattr(stage, "say", lambda text, **_: waits.set() if "another process is training" in text else None)

    def slow(config: Any, path: Path, resume: bool) -> None:
        trained.append(threading.current_thread().name)
        path.mkdir(parents=True)
        assert waits.wait(60)
        runs.write_metrics(path, {"epochs": 3})

    data, found = build(cfg.data, "data"), []
    [spec] = teacher_specs(cfg.model)
    stage.check_stage(cfg, spec, data)
    ask = lambda: found.append(stage.trained_teacher(cfg, spec, data, slow))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trained) == 1 and len(found) == 2 and found[0] == found[1]


def test_goes_on_where_it_was_interrupted(auto: Any, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    whole = train(auto(), tmp_path / "a")["teacher"]
    weights = (folders(tmp_path)[0] / "student.safetensors").read_bytes()
    epochs: list[int] = []

    def stop(self: Any, *args: Any) -> None:
        epochs.append(self.current_epoch)
        if self.current_epoch == 2 and epochs.count(2) == 1:
            raise Crash

    monkeypatch.setattr("kd_lightning.distiller.Distiller.on_train_epoch_start", stop)
    other = tmp_path / "other"
    with pytest.raises(Crash):
        train(auto(f"teacher_stage.dir={other}"), tmp_path / "b")
    [folder] = [p for p in other.iterdir() if p.is_dir()]
    assert not runs.is_finished(folder) and epochs == [0, 1, 2]
    capfd.readouterr()
    metrics = train(auto(f"teacher_stage.dir={other}"), tmp_path / "c")
    assert "going on" in capfd.readouterr().out
    assert epochs == [0, 1, 2, 2, 0]  # the last one is the student's
    assert whole.pop("weights") != metrics["teacher"].pop("weights")  # in another folder
    assert metrics["teacher"] == whole and (folder / "student.safetensors").read_bytes() == weights


def test_stage_is_an_ordinary_run(auto: Any, tmp_path: Path) -> None:
    """A teacher's folder serves as `model.teacher_weights` of another machine, with the same result."""
    auto_run = train(auto(), tmp_path / "a")
    [folder] = folders(tmp_path)
    run = runs.read(folder)
    assert run.config.model.student == "resnet8" and run.metrics["epochs"] == 3
    by_path = train(auto(f"model.teacher_weights={folder}"), tmp_path / "b")
    assert by_path["student"] == auto_run["student"] and by_path["teacher"] == auto_run["teacher"]


def test_imagenet_without_network(auto: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    cfg = auto("model.teacher=resnet18", "model.teacher_weights=imagenet")
    with pytest.raises(UserError, match=r"model.teacher_weights=imagenet: .*'resnet18'.*Name or service not known"):
        build_experiment(cfg)


def test_imagenet_weights_start_the_stage(auto: Any, tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[bool] = []

    def spy(*args: Any, pretrained: bool = False, **kwargs: Any) -> Any:
        asked.append(pretrained)
        return create_model(*args, **kwargs)

    monkeypatch.setattr("kd_lightning.training.build.create_model", spy)
    monkeypatch.setattr("kd_lightning.training.teacher_stage.create_model", spy)
    train(auto("model.teacher_weights=imagenet"), tmp_path / "a")
    assert asked == [False, True, True]  # the student; the check whether there are weights; the stage
