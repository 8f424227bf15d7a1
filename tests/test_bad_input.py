"""Every mistake ends before any training: status 2, one line that names the key as typed, what is wanted and got."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_lightning import runs
from kd_lightning.models import create_model
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.unknown_keys import unknown_key
from tests.conftest import TINY, environment

MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    # what was typed → what the message must say
    "unknown key": ("trainer.max_epoch=3", ("trainer.max_epoch", "trainer.max_epochs")),
    "key that nothing reads": ("+epochs=3", ("unknown key 'epochs'; did you mean 'trainer.max_epochs'",)),
    "last part of a key": ("lr=0.1", ("unknown key 'lr'; did you mean 'optimizer.lr'",)),
    "key that a loss lacks": ("loss.T=4", ("unknown key 'loss.T'", "temperature")),
    "value of a key that is not there": (
        "trainer.max_epochs=${sed}",
        ("trainer.max_epochs=${sed}: ", "'sed' not found"),
    ),
    "dashes": ("--epochs=3", ("unknown flag --epochs=3; keys are written without dashes: epochs=3",)),
    "unknown group": ("lose=kd", ("lose", "loss")),
    "number for a group": ("data=0", ("data", "digits", "'0'")),
    "number added for a group": ("+data=0", ("data", "digits", "'0'")),
    "numbers for a group": ("data=[1,2]", ("data", "digits", "'1'")),
    "unknown option of a group": ("loss=kdd", ("kdd", "ce", "kd_cifar", "did you mean 'kd'")),
    "unknown experiment": ("experiment=quickstrat", ("quickstrat", "did you mean 'quickstart'")),
    "a word without a value": ("loss.temperature", ("'loss.temperature'", "write key=value")),
    "spaces around =": ("loss.temperature = 4", ("'loss.temperature'", "write key=value")),
    "unclosed bracket": ("data.normalize.mean=[0.1,0.2", ("data.normalize.mean",)),
    "unknown student": ("model.student=resnet21", ("model.student", "resnet21", "did you mean 'resnet")),
    "unknown teacher": ("model.teacher=resnet5", ("model.teacher", "resnet5", "did you mean 'resnet")),
    "model of a module that is not there": ("model.student=no_such.net", ("model.student", "no_such")),
    "no student": ("model.student=null", ("model.student",)),
    "no teacher to learn from": ("model.teacher=null", ("model.teacher", "None", "loss=ce")),
    "argument that a model lacks": ("+model.student_kwargs.depth_=3", ("model.student", "depth_")),
    "argument without a plus": ("model.student_kwargs={depth_:3}", ("depth_", "+model.student_kwargs={depth_:3}")),
    "SyncBatchNorm on a CPU": (
        "trainer.sync_batchnorm=true",
        ("trainer.sync_batchnorm=true needs a GPU", "leave it out"),
    ),
    "text for a number": ("loss.temperature=abc", ("loss.temperature", "number > 0", "'abc'")),
    "zero temperature": ("loss.temperature=0", ("loss.temperature", "> 0", "got 0")),
    "negative weight": ("loss.alpha=-0.5", ("loss.alpha", ">= 0", "-0.5")),
    "not a number": ("loss.alpha=nan", ("loss.alpha", "nan")),
    "infinite": ("loss.temperature=inf", ("loss.temperature", "inf")),
    "nothing to learn": ("loss.alpha=0 loss.ce_weight=0", ("loss.alpha", "loss.ce_weight", "both 0")),
    "negatives of CRD": ("loss=crd loss.negatives=0", ("loss.negatives", "whole number >= 1", "got 0")),
    "inside a combination": ("loss=kd_attention loss.kd.temperature=-1", ("loss.kd.temperature", "> 0", "got -1")),
    "half a schedule": ("loss.alpha={schedule:linear,start:0}", ("loss.alpha lacks 'end'", "schedule: linear")),
    "unknown schedule": (
        "loss.alpha={schedule:linaer,start:0,end:1,epochs:2}",
        ("loss.alpha.schedule", "did you mean 'linear'"),
    ),
    "unknown layer": ("loss=sp loss.student_layers=layer9", ("layer9", "layer1, layer2, layer3")),
    "batch without relations": ("loss=dist data.batch_size=1", ("data.batch_size", "2 or more", "batches of 1")),
    "a key of another loss": ("loss=ce loss.temperature=4", ("loss.temperature", "loss=ce", "ce_weight")),
    "fractional epochs": ("trainer.max_epochs=1.5", ("trainer.max_epochs", "whole number >= 1", "1.5")),
    "no epochs": ("trainer.max_epochs=0", ("trainer.max_epochs", ">= 1", "got 0")),
    "text for a seed": ("seed=abc", ("seed", "abc")),
    "negative seed": ("seed=-1", ("seed must", ">= 0", "got -1")),
    "missing GPU": ("trainer.accelerator=gpu", ("trainer.accelerator=gpu", "cpu")),
    "unknown accelerator": ("trainer.accelerator=cup", ("trainer.accelerator", "cup", "did you mean 'cpu'")),
    "no devices": ("trainer.devices=0", ("trainer.devices", ">= 1", "got 0")),
    "half a device": ("trainer.devices=1.5", ("trainer.devices", "1.5")),
    "precision that a CPU lacks": ("trainer.precision=16-mixed", ("trainer.precision", "16-mixed", "bf16-mixed")),
    "unknown precision": ("trainer.precision=bf61-mixed", ("trainer.precision", "did you mean 'bf16-mixed'")),
    "unknown strategy": ("trainer.strategy=dpp", ("trainer.strategy", "dpp")),
    "unknown clipping": ("trainer.gradient_clip_algorithm=nrom", ("trainer.gradient_clip_algorithm", "nrom")),
    "negative clipping": ("trainer.gradient_clip_val=-1", ("trainer.gradient_clip_val", "-1")),
    "unknown profiler": ("trainer.profiler=fast", ("trainer.profiler", "fast")),
    "bad limit": ("trainer.limit_train_batches=1.5", ("trainer.limit_train_batches", "1.5")),
    "text for a limit": ("trainer.limit_val_batches=few", ("trainer.limit_val_batches", "few")),
    "bad time": ("trainer.max_time=soon", ("trainer.max_time", "soon")),
    "text for a learning rate": ("optimizer.lr=fast", ("optimizer.lr", "number", "'fast'")),
    "negative learning rate": ("optimizer.lr=-0.1", ("optimizer.lr", "-0.1")),
    "learning rate that is not a number": ("optimizer.lr=nan", ("optimizer.lr", "nan")),
    "negative weight decay": ("optimizer.weight_decay=-1", ("optimizer.weight_decay", "-1")),
    "momentum above 1": ("optimizer.momentum=1.5", ("optimizer.momentum", "1.5")),
    "nesterov without momentum": ("optimizer.momentum=0 optimizer.nesterov=true", ("optimizer", "momentum")),
    "one beta": ("optimizer=adamw optimizer.betas=0.9", ("optimizer.betas", "0.9")),
    "unknown optimizer": ("optimizer._target_=torch.optim.SDG", ("optimizer", "SDG")),
    "warm-up longer than training": ("scheduler.warmup_epochs=9", ("scheduler.warmup_epochs", "9")),
    "negative warm-up": ("scheduler.warmup_epochs=-1", ("scheduler.warmup_epochs", "-1")),
    "final above 1": ("scheduler.final=2", ("scheduler.final", "<= 1", "got 2")),
    "bad milestones": ("scheduler=multistep scheduler.milestones=[a]", ("scheduler.milestones", "'a'")),
    "one milestone": ("scheduler=multistep scheduler.milestones=5", ("scheduler.milestones", "5")),
    "teacher's learning rate": ("teacher_stage.optimizer.lr=-1", ("teacher_stage.optimizer.lr", "-1")),
    "teacher's optimizer by name": ("teacher_stage.optimizer=adamw", ("teacher_stage.optimizer", "adamw")),
    "teacher's schedule": ("teacher_stage.scheduler.final=2", ("teacher_stage.scheduler.final", "got 2")),
    "teacher's epochs": ("teacher_stage.max_epochs=0", ("teacher_stage.max_epochs", ">= 1", "got 0")),
    "negative validation split": ("data.val_size=-1", ("data.val_size", ">= 0", "-1")),
    "validation split of everything": ("data.val_size=1437", ("data.val_size", "1437")),
    "fewer held out than classes": ("data.val_size=5", ("data.val_size", "10", "5")),
    "too many to train on": ("data.train_size=5000", ("data.train_size", "5000")),
    "no batch": ("data.batch_size=0", ("data.batch_size", ">= 1", "got 0")),
    "std of zero": ("data.normalize.std=[0,1,1]", ("data.normalize.std[0]", "> 0")),
    "mean of one channel": ("data.normalize.mean=[0.5]", ("data.normalize.mean", "three numbers")),
    "negative crop": ("data.augment.pad=-1", ("data.augment.pad", "-1")),
    "text for yes or no": ("data.augment.flip=often", ("data.augment.flip", "true or false", "often")),
    "unknown normalization": ("model.teacher_normalize=imagnet", ("model.teacher_normalize", "'imagenet'")),
    "half a normalization": ("model.teacher_normalize={mean:[0,0,0]}", ("model.teacher_normalize.std", "None")),
    "number for a normalization": ("model.teacher_normalize=3", ("model.teacher_normalize", "3")),
    "missing weights": ("model.teacher_weights=nowhere.pt", ("model.teacher_weights", "nowhere.pt", "not exist")),
    "folder without weights": ("model.teacher_weights=.", ("model.teacher_weights", "run")),
    "weights without ImageNet": ("model.teacher_weights=imagenet", ("model.teacher_weights", "resnet8", "ImageNet")),
    "missing photos": ("data=image_folder data.root=my_fotos", ("data.root=my_fotos", "no such folder")),
    "no weights of a teacher": (
        "model.teacher_weights=null",
        ("model.teacher_weights: null names no weights; give a",),
    ),
    "weights of no student": ("model.student_weights=auto", ("auto does not exist; give a checkpoint file or a run",)),
    "photos without root": ("data=image_folder", ("error: data.root must be given: data.root=…",)),
    "output below a file": ("hydra.run.dir=a_file/run", ("a_file", "hydra.run.dir")),
    "output is a file": ("hydra.run.dir=a_file", ("a_file", "hydra.run.dir")),
    "output that no one can write": ("hydra.run.dir=/proc/run", ("/proc/run", "hydra.run.dir")),
    "teachers below a file": ("teacher_stage.dir=a_file/teachers", ("teacher_stage.dir", "a_file")),
    "flags that exclude each other": ("-m --cfg job", ("Only one of --run, --multirun, --cfg",)),
    "resume of nothing": ("resume=nowhere", ("resume", "nowhere", "run directory")),
}


@pytest.mark.parametrize("typed, told", MISTAKES.values(), ids=MISTAKES)
def test_one_line_before_training(typed: str, told: tuple[str, ...], cli: Any, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("mine")
    words = typed.split()
    tiny = not any(w.startswith("data=") for w in words)
    finished = cli(*words, tiny=tiny)
    check(finished, *told)
    assert (tmp_path / "a_file").read_text() == "mine"
    assert left_behind(tmp_path) == ["a_file"]


def check(finished: Any, *told: str) -> None:
    assert finished.status == 2, finished
    assert "Traceback" not in finished.err + finished.out
    lines = finished.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), finished.err
    assert all(words in lines[0] for words in told), lines[0]
    assert "accuracy" not in finished.out


def left_behind(folder: Path) -> list[str]:
    """Files, and folders that look like runs."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.name.startswith("20"))


# Teachers from files


def good_weights(num_classes: int = 10) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_model("resnet8", num_classes, image_size=8).state_dict()


class Shell:
    """A pickle that would leave a trace if it ran."""

    def __reduce__(self) -> Any:
        return os.system, ("touch hacked",)


def malicious(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Shell()}, protocol=2))


def malicious_now(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Shell()}))  # of a protocol that torch does not write


def malicious_zip(path: Path) -> None:
    torch.save({"state_dict": Shell()}, path)


def whole_model(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def cut(path: Path) -> None:
    torch.save(good_weights(), path)
    path.write_bytes(path.read_bytes()[:5000])


def overwritten(path: Path) -> None:
    torch.save(good_weights(), path)
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))


def text(path: Path) -> None:
    path.write_text("<html>404</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_tensors(path: Path) -> None:
    torch.save({"epoch": 3, "lr": 0.1}, path)


def two_models(path: Path) -> None:
    torch.save({"ema": good_weights(), "raw": good_weights()}, path)


def hundred_classes(path: Path) -> None:
    torch.save(good_weights(100), path)


def other_net(path: Path) -> None:
    torch.save(create_model("resnet20", 10).state_dict(), path)


def chance(path: Path) -> None:
    torch.save(good_weights(), path)


def not_finite(path: Path) -> None:
    torch.save({k: v * float("nan") if k == "conv1.weight" else v for k, v in good_weights().items()}, path)


FILES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "malicious pickle": (malicious, ("never run",)),
    "malicious pickle of today": (malicious_now, ("not a checkpoint",)),
    "malicious pickle in a zip": (malicious_zip, ("never run", "state_dict()")),
    "whole model": (whole_model, ("never run", "state_dict()")),
    "cut off": (cut, ("damaged",)),
    "overwritten": (overwritten, ("damaged",)),
    "text": (text, ("damaged or not a checkpoint",)),
    "empty": (empty, ("damaged or not a checkpoint",)),
    "no tensors": (no_tensors, ("state dict", "epoch, lr")),
    "two models": (two_models, ("found 2", "ema, raw")),
    "wrong class count": (hundred_classes, ("wrong shape", "fc.weight [100, 64] instead of [10, 64]")),
    "wrong net": (other_net, ("does not fit", "unexpected", "layer1.1.bn1.bias", "and 68 more")),
    "near chance": (chance, ("chance is 10.0%", "model.teacher_normalize")),
    "not finite": (not_finite, ("nan",)),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("write, told", FILES.values(), ids=FILES)
def test_teacher_file(write: Any, told: tuple[str, ...], suffix: str, cli: Any, tmp_path: Path) -> None:
    path = tmp_path / f"teacher{suffix}"
    if suffix == ".safetensors":
        if write not in (text, empty, cut, hundred_classes):
            pytest.skip("cannot be written in this format")
        save_file(good_weights(100 if write is hundred_classes else 10), path)
        if write is cut:
            path.write_bytes(path.read_bytes()[:5000])
        elif write is not hundred_classes:
            write(path)
    else:
        write(path)
    check(cli(f"model.teacher_weights={path.name}"), "model.teacher_weights", *told)
    assert left_behind(tmp_path) == [path.name]  # and nothing was run


# Runs that exist


@pytest.fixture
def run(teacher_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(teacher_run, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_never_overwritten(cli: Any, run: Path) -> None:
    before = contents(run)
    check(cli("loss=ce", f"hydra.run.dir={run}"), "already holds a run", f"resume={run.name}")
    assert contents(run) == before
    check(cli("loss.temperature=-1", f"hydra.run.dir={run}"), "loss.temperature")
    assert contents(run) == before


def test_resume_of_a_finished_run(cli: Any, run: Path) -> None:
    before = contents(run)
    check(cli(f"resume={run}", tiny=False), "resume", "finished", "trainer.max_epochs")
    assert contents(run) == before


def test_resume_of_a_damaged_checkpoint(cli: Any, run: Path) -> None:
    (run / runs.METRICS).unlink()
    (run / runs.LAST).write_bytes((run / runs.LAST).read_bytes()[:3000])
    before = contents(run)
    check(cli(f"resume={run}", tiny=False), "resume", runs.LAST, "damaged")
    assert contents(run) == before


def test_resume_of_a_damaged_configuration(cli: Any, run: Path) -> None:
    (run / runs.CONFIG).write_text("model: [")
    check(cli(f"resume={run}", tiny=False), "resume", runs.CONFIG, "damaged")


@pytest.mark.parametrize("change", ["loss=kd", "loss.ce_weight=2", "model.student=resnet20", "seed=3", "data=cifar10"])
def test_resume_is_of_the_same_run(change: str, cli: Any, run: Path) -> None:
    before = contents(run)
    check(cli(f"resume={run}", change, "trainer.max_epochs=9", tiny=False), "resume", change, "new run")
    assert contents(run) == before


def test_key_that_one_loss_of_a_sweep_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "-m", "loss=ce,kd", "loss.temperature=2"])
    assert "'loss.temperature' in one of loss=ce,kd" in unknown_key("loss.temperature", "")


def test_layer_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"no layer 'layer9' in CifarResNet; did you mean 'layer.'"):
        FeatureExtractor(create_model("resnet8", 10), ["layer9"])


# As a user sees it


@pytest.mark.parametrize(
    "typed", ["loss.temperature=abc", pytest.param("model.student=resnet21", marks=pytest.mark.slow)]
)
def test_in_a_process_of_its_own(typed: str, tmp_path: Path) -> None:
    started = time.monotonic()
    command = [sys.executable, "-m", "kd_lightning.train", *TINY, typed]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
    assert time.monotonic() - started < 15 * (1 + os.getloadavg()[0])  # 15 s on a machine with nothing else to do
    assert left_behind(tmp_path) == []
