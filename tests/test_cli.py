"""What a user can type, scaled down: each line of the README does what it says."""

import importlib.metadata
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image
from torchvision import datasets

from kd_lightning import runs
from kd_lightning.config import CONF_DIR
from kd_lightning.data import CIFAR10DataModule, CIFAR100DataModule
from kd_lightning.runs.students import load_student
from kd_lightning.train import main
from tests.conftest import TINY, Finished, compose

pytestmark = pytest.mark.usefixtures("no_pictures")
Cli = Callable[..., Finished]
SMALL = [o for o in TINY if not o.startswith("data")]


def only_run(folder: Path) -> runs.Run:
    [run] = runs.find(folder)
    return run


# python -m kd_lightning.train model.teacher=resnet50 loss.temperature=4


def test_distill_with_another_temperature(cli: Cli, teacher_run: Path) -> None:
    done = cli(f"model.teacher_weights={teacher_run}", "loss.temperature=4")
    assert done.status == 0 and done.err == ""
    run = only_run(Path("outputs/train"))
    assert run.config.loss.temperature == 4 and run.config.model.teacher == "resnet8"
    for words in (
        "resnet8 → resnet8",
        "teacher: ",
        "test accuracy",
        "teacher resnet8",
        "student resnet8",
        str(run.path),
    ):
        assert words in done.out
    assert (run.path / "train.log").read_text().count("test accuracy") >= 1


def test_defaults_are_the_articles_recipe() -> None:
    cfg = OmegaConf.masked_copy(compose(), ["loss", "scheduler"])
    assert (cfg.loss.alpha, cfg.loss.temperature, cfg.loss.ce_weight) == (0.5, 2.0, 1.0)
    assert cfg.scheduler._target_ == "kd_lightning.schedules.cosine"


def test_defaults_of_the_groups(cli: Cli) -> None:
    done = cli("--cfg", "job", tiny=False)
    cfg = yaml.safe_load(done.out)
    assert cfg["data"]["_target_"].endswith("CIFAR10DataModule") and cfg["data"]["batch_size"] == 128
    assert (
        cfg["data"]["augment"] == {"pad": 4, "flip": True, "cutout": 0, "mixup": 0, "cutmix": 0}
        and cfg["data"]["val_size"] == 5000
    )
    assert (cfg["model"]["teacher"], cfg["model"]["student"]) == ("resnet50", "resnet18")
    sgd = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    assert {k: cfg["optimizer"][k] for k in sgd} == sgd and cfg["trainer"]["max_epochs"] == 200


# … experiment=quickstart


@pytest.mark.slow
def test_quickstart(cli: Cli) -> None:
    done = cli("experiment=quickstart", "trainer.max_epochs=1", "teacher_stage.max_epochs=2", tiny=False)
    assert done.status == 0, done.err
    [sweep] = Path("outputs/sweep").iterdir()
    found = runs.find(sweep)
    assert len(found) == 6 and {r.config.seed for r in found} == {0, 1, 2}
    assert "verdict" in done.out and "resnet20" in done.out
    assert len(runs.find(Path("outputs/teachers"))) == 1


@pytest.mark.parametrize("path", sorted((CONF_DIR / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_composes_with_the_options_and_keys_that_it_gives(path: Path) -> None:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[f"experiment={path.stem}"], return_hydra_config=True)
    assert cfg.trainer.max_epochs >= 1
    own = OmegaConf.load(path)
    for option in own.pop("defaults", []):
        if not isinstance(option, str):
            [(group, name)] = option.items()
            assert cfg.hydra.runtime.choices[group.removeprefix("override /")] == name
    assert OmegaConf.to_container(OmegaConf.merge(cfg, own)) == OmegaConf.to_container(cfg), "its keys are there"
    losses = OmegaConf.select(own, "hydra.sweeper.params.loss", default=cfg.hydra.runtime.choices.loss)
    assert all((CONF_DIR / "loss" / f"{loss}.yaml").is_file() for loss in losses.split(","))


# … -m loss.temperature=1,2,4,8 loss.alpha=0.3,0.5,0.9


@pytest.mark.parametrize("order", [pytest.param("first", marks=pytest.mark.slow), "between"])
def test_grid_ends_with_the_comparison(order: str, cli: Cli, teacher_run: Path) -> None:
    words = [f"model.teacher_weights={teacher_run}", "loss.temperature=1,4", "loss.alpha=0.3,0.9"]
    words.insert(0 if order == "first" else 2, "-m")
    done = cli(*words)
    assert done.status == 0, done.err
    [sweep] = Path("outputs/sweep").iterdir()
    found = runs.find(sweep)
    assert [r.path.name for r in found] == ["0_T1_alpha0.3", "1_T1_alpha0.9", "2_T4_alpha0.3", "3_T4_alpha0.9"]
    assert [(r.config.loss.temperature, r.config.loss.alpha) for r in found] == [(1, 0.3), (1, 0.9), (4, 0.3), (4, 0.9)]
    table = (sweep / "comparison.md").read_text()
    assert all(f"temperature={t}" in table and f"alpha={a}" in table for t in (1, 4) for a in (0.3, 0.9))
    assert not Path("outputs/train").exists()


def test_a_sweep_goes_on_after_a_mistake(cli: Cli, teacher_run: Path) -> None:
    done = cli("-m", f"model.teacher_weights={teacher_run}", "loss.temperature=-1,4")
    assert done.status != 0 and "loss.temperature must be a number > 0" in done.err and "Traceback" not in done.err
    assert only_run(Path("outputs/sweep")).config.loss.temperature == 4


# … data=cifar100 model.teacher=resnet32x4 model.student=resnet8x4


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny archives in the form of CIFAR-10 and CIFAR-100, unpacked; torchvision's sums are taken from them."""
    rng = np.random.default_rng(0)
    for kind, labels, classes in ((datasets.CIFAR10, "labels", 10), (datasets.CIFAR100, "fine_labels", 100)):
        folder = tmp_path / "data" / kind.base_folder
        folder.mkdir(parents=True)
        for name, _ in (*kind.train_list, *kind.test_list):
            y = list(range(classes)) * (200 // classes)
            x = rng.integers(0, 60, (len(y), 3072)) + 190 * (np.array(y)[:, None] % 10 / 10)
            (folder / name).write_bytes(pickle.dumps({"data": x.astype(np.uint8), labels: y}))
        meta = {kind.meta["key"]: [str(i) for i in range(classes)]}
        (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, *_: Path(path).is_file())
    monkeypatch.setattr("kd_lightning.data.images.cifar.check_integrity", lambda path, *_: Path(path).is_file())
    monkeypatch.setattr(CIFAR10DataModule, "total", 1000)  # five files; CIFAR-100 has one
    monkeypatch.setattr(CIFAR100DataModule, "total", 200)
    return tmp_path / "data"


@pytest.mark.slow
def test_cifar100(cli: Cli, cifar: Path) -> None:
    settings = ("data.val_size=100", "data.batch_size=32", "trainer.max_epochs=1", "teacher_stage.max_epochs=1")
    cpu = ("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.enable_progress_bar=false")
    done = cli(
        "data=cifar100", "model.teacher=resnet32x4", "model.student=resnet8x4", "loss=ce", *settings, *cpu, tiny=False
    )
    assert done.status == 0, done.err
    run = only_run(Path("outputs/train"))
    assert run.metrics["student"]["parameters"] == 1_233_540  # resnet8x4 with 100 classes


def test_cifar10(cli: Cli, cifar: Path) -> None:
    done = cli(*SMALL, "data=cifar10", "data.val_size=100", "loss=ce", "data.batch_size=64", tiny=False)
    assert done.status == 0, done.err
    assert "900 train / 100 val / 200 test" in done.out


def test_cifar10_without_network(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    done = cli(*SMALL, "data=cifar10", tiny=False)
    assert done.status == 2 and len(done.err.splitlines()) == 1
    for words in (str(tmp_path / "data"), "cifar-10-python.tar.gz", "experiment=quickstart", "data.root"):
        assert words in done.err
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


# … trainer.accelerator=cpu trainer.devices=2 trainer.precision=bf16-mixed: see test_ddp.py


def test_bf16(cli: Cli, teacher_run: Path) -> None:
    done = cli(f"model.teacher_weights={teacher_run}", "trainer.precision=bf16-mixed", "trainer.max_epochs=3")
    assert done.status == 0, done.err
    run = only_run(Path("outputs/train"))
    assert run.metrics["precision"] == "bf16-mixed" and run.metrics["epochs"] == 3


# … model.teacher_weights=resnet56-4bfd9763.th


def test_teacher_from_a_file_of_others(cli: Cli, teacher_run: Path) -> None:
    """`{"state_dict": {"module.…": …}}`, and trained with another normalization than the student's."""
    model, _ = load_student(teacher_run)
    state = {f"module.{k.replace('fc.', 'linear.')}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 1}, "teacher.th")
    digits = "{mean:[0.3053,0.3053,0.3053],std:[0.3759,0.3759,0.3759]}"
    other = "data.normalize={mean:[0.5,0.5,0.5],std:[0.25,0.25,0.25]}"
    done = cli("model.teacher_weights=teacher.th", f"model.teacher_normalize={digits}", other)
    assert done.status == 0, done.err
    wanted = runs.read(teacher_run).student["test"]["accuracy"]
    assert only_run(Path("outputs/train")).metrics["teacher"]["test"]["accuracy"] == pytest.approx(wanted, abs=0.006)


# … loss=ce


def test_baseline_has_no_teacher(cli: Cli) -> None:
    done = cli("loss=ce", "model.teacher_weights=nowhere.pt")
    assert done.status == 0, done.err
    assert "teacher" not in done.out.replace("teacher_", "") and "teacher" not in only_run(Path("outputs")).metrics
    assert not Path("outputs/teachers").exists()


# … data=image_folder data.root=my_photos


def test_my_photos(cli: Cli) -> None:
    rng = np.random.default_rng(0)
    for name, color in (("cats", 60), ("dogs", 180)):
        folder = Path("my_photos/train") / name
        folder.mkdir(parents=True)
        for i in range(8):
            size = (20 + i, 30)
            Image.fromarray((color + rng.integers(0, 40, (*size, 3))).astype(np.uint8)).save(folder / f"{i}.png")
    settings = ("data.image_size=32", "data.num_workers=0", "data.batch_size=4", "data.val_size=0.25", "loss=ce")
    done = cli(*SMALL, "data=image_folder", "data.root=my_photos", *settings, tiny=False)
    assert done.status == 0, done.err
    assert load_student(only_run(Path("outputs")).path)[1].classes == ["cats", "dogs"]


# … resume=outputs/train/<run>


def test_resume(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Any) -> None:
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("kd_lightning.distiller.Distiller.on_train_epoch_start", stop, raising=False)
        done = cli("loss=ce", "trainer.max_epochs=2", "hydra.run.dir=outputs/train/a")
    assert done.status != 0 and "resume=outputs/train/a" in done.out and "Traceback" not in done.err
    done = cli("resume=outputs/train/a", tiny=False)
    assert done.status == 0, done.err
    assert cli("loss=ce", "trainer.max_epochs=2", "hydra.run.dir=outputs/train/b").status == 0
    a, b = runs.find(Path("outputs/train"))
    assert a.metrics["student"] == b.metrics["student"] and a.metrics["epochs"] == 2
    assert cli("resume=outputs/train/a", "trainer.max_epochs=3", tiny=False).status == 0
    assert runs.read(Path("outputs/train/a")).metrics["epochs"] == 3
    assert [p.name for p in sorted(Path("outputs/train").iterdir())] == ["a", "b"]


# … --help | --cfg job


def test_help(cli: Cli) -> None:
    done = cli("--help", tiny=False)
    assert done.status == 0 and "experiment=quickstart" in done.out and "temperature: 2.0" in done.out
    for group in ("data: audio_folder, cifar10", "loss: ", "optimizer: ", "scheduler: ", "trainer: "):
        assert group in done.out


def test_cfg_job(cli: Cli, tmp_path: Path) -> None:
    done = cli("--cfg", "job", "loss.temperature=4", tiny=False)
    assert done.status == 0 and yaml.safe_load(done.out)["loss"]["temperature"] == 4
    assert list(tmp_path.iterdir()) == []


def test_every_usual_trainer_key_needs_no_plus(cli: Cli) -> None:
    keys = "max_epochs accelerator devices strategy precision accumulate_grad_batches gradient_clip_val "
    keys += "limit_train_batches max_steps max_time check_val_every_n_epoch log_every_n_steps deterministic benchmark "
    keys += "profiler num_nodes"
    assert set(keys.split()) <= set(yaml.safe_load(cli("--cfg", "job", tiny=False).out)["trainer"])


def test_some_trainer_keys(cli: Cli) -> None:
    settings = ("accumulate_grad_batches=2", "gradient_clip_val=1.0", "limit_train_batches=3", "deterministic=true")
    done = cli("loss=ce", *(f"trainer.{s}" for s in settings))
    assert done.status == 0, done.err


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("scheduler", ["constant", "cosine", "multistep"])
def test_every_optimizer_and_schedule(optimizer: str, scheduler: str, cli: Cli) -> None:
    done = cli("loss=ce", f"optimizer={optimizer}", f"scheduler={scheduler}", "trainer.limit_train_batches=2")
    assert done.status == 0, done.err


# --config-dir my_conf


def test_my_own_configuration(cli: Cli) -> None:
    Path("my_conf/loss").mkdir(parents=True)
    Path("my_conf/loss/mine.yaml").write_text("_target_: kd_lightning.losses.CE\nce_weight: 3.0\n")
    Path("my_conf/optimizer").mkdir()
    Path("my_conf/optimizer/sgd.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.07\n")
    done = cli("--config-dir", "my_conf", "loss=mine", "--cfg", "job", tiny=False)
    assert done.status == 0 and yaml.safe_load(done.out)["loss"]["ce_weight"] == 3.0
    done = cli("--config-dir", "my_conf", "loss=mine")
    assert done.status == 0, done.err
    assert only_run(Path("outputs")).config.loss.ce_weight == 3.0


def test_console_script() -> None:
    """In the project's own metadata, and in the installed package where it is one."""
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'kd-train = "kd_lightning.train:main"' in pyproject
    found = [e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "kd-train"]
    assert all(e.load() is main for e in found)
