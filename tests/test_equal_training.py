"""The same training by other means: accumulated, clipped, in fp16, compiled, on two processes; with other batches."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from kd_lightning.data import DigitsDataModule
from kd_lightning.distiller import Distiller
from kd_lightning.models import create_model
from kd_lightning.schedules import constant
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.training import run as train_module
from kd_lightning.training.build import build_experiment
from kd_lightning.utils.checks import UserError
from tests.conftest import TINY, compose, environment

NET = '''
from torch import nn

def tiny(num_classes):
    """Without BatchNorm, whose statistics are those of a process's share."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, num_classes))
'''
namespace: dict[str, Any] = {}
exec(NET, namespace)
tiny = namespace["tiny"]


def fit(batch_size: int = 64, lr: float = 0.05, **settings: Any) -> tuple[list[Tensor], pl.Trainer]:
    torch.manual_seed(1)
    teacher = LiveTeacher(create_model("resnet8", 10, image_size=8))
    net: nn.Module = tiny(10)
    loss = build_experiment(compose()).loss
    optimizer = lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9)  # noqa: E731
    distiller = Distiller(net, teacher, loss, num_classes=10, optimizer=optimizer, schedule=constant)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=2,
        enable_checkpointing=False, num_sanity_val_steps=0, inference_mode=False, **settings,
    )  # fmt: skip
    trainer.fit(distiller, DigitsDataModule(train_size=320, batch_size=batch_size))
    return [p.detach().clone() for p in net.parameters()], trainer


def close(a: list[Tensor], b: list[Tensor], **tolerance: float) -> bool:
    return all(torch.allclose(x, y, **tolerance) for x, y in zip(a, b, strict=True))


def test_two_accumulated_halves_are_one_batch() -> None:
    whole, _ = fit(64)
    halves, trainer = fit(32, accumulate_grad_batches=2)
    assert trainer.global_step == 10 and close(whole, halves, rtol=1e-4, atol=1e-6)
    clipped, _ = fit(64, gradient_clip_val=0.05)
    clipped_halves, _ = fit(32, accumulate_grad_batches=2, gradient_clip_val=0.05)
    assert close(clipped, clipped_halves, rtol=1e-4, atol=1e-6) and not close(whole, clipped, rtol=1e-2)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_what_is_small_enough_changes_nothing(algorithm: str) -> None:
    free, _ = fit()
    clipped, _ = fit(gradient_clip_val=1e6, gradient_clip_algorithm=algorithm)
    assert all(torch.equal(a, b) for a, b in zip(free, clipped, strict=True))


def scaled(scale: float) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


def test_fp16_with_gradient_scaling_trains_as_fp32() -> None:
    exact, _ = fit()
    half, trainer = fit(plugins=scaled(2.0**12))
    assert close(exact, half, rtol=0.02, atol=0.005) and not close(exact, half, rtol=1e-6)
    clipped, _ = fit(gradient_clip_val=0.05)
    half_clipped, _ = fit(plugins=scaled(2.0**12), gradient_clip_val=0.05)
    assert close(clipped, half_clipped, rtol=0.02, atol=0.005), "gradients are unscaled before they are clipped"
    assert trainer.precision_plugin.scaler.get_scale() == 2.0**12


def test_bf16_trains_as_fp32() -> None:
    exact, _ = fit()
    half, _ = fit(precision="bf16-mixed")
    assert close(exact, half, rtol=0.02, atol=0.003) and not close(exact, half, rtol=1e-6)
    assert all(p.dtype == torch.float32 for p in half), "weights and what the optimizer adds to them stay exact"
    halves, _ = fit(32, accumulate_grad_batches=2, precision="bf16-mixed")
    assert close(half, halves, rtol=0.02, atol=0.003)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the optimizer's steps are skipped, rightly
def test_an_overflow_is_skipped_and_the_scale_falls() -> None:
    half, trainer = fit(plugins=scaled(2.0**40))
    assert all(p.isfinite().all() for p in half) and trainer.precision_plugin.scaler.get_scale() < 2.0**40


# Batches and learning rates


def test_a_global_batch_is_divided_among_accumulated_steps() -> None:
    parts = build_experiment(compose("data.global_batch_size=96", "trainer.accumulate_grad_batches=3"))
    assert parts.data.batch_size == 32
    with pytest.raises(UserError, match=r"data\.global_batch_size=100 cannot be divided by 3"):
        build_experiment(compose("data.global_batch_size=100", "trainer.accumulate_grad_batches=3"))
    with pytest.raises(UserError, match=r"data\.global_batch_size must be a whole number >= 1, got 0"):
        build_experiment(compose("data.global_batch_size=0"))


def test_the_learning_rate_grows_with_the_global_batch() -> None:
    def rate(*words: str) -> float:
        return float(build_experiment(compose(*words)).optimizer([nn.Parameter(torch.ones(1))]).param_groups[0]["lr"])

    assert rate("optimizer.lr=0.1") == 0.1
    assert rate("optimizer.lr=0.1", "optimizer.lr_batch_size=128") == pytest.approx(0.05)  # a batch of 64
    scaled = ("optimizer.lr=0.1", "optimizer.lr_batch_size=128", "data.global_batch_size=256")
    assert rate(*scaled, "trainer.accumulate_grad_batches=2") == pytest.approx(0.2)
    with pytest.raises(UserError, match=r"optimizer\.lr_batch_size must be a whole number >= 1, got 0"):
        rate("optimizer.lr_batch_size=0")


# torch.compile


@pytest.mark.parametrize(
    ("teacher", "networks"), [("resnet8", 2), pytest.param("[resnet8,resnet8]", 3, marks=pytest.mark.slow)]
)
def test_compiled_it_learns_the_same(
    teacher: str, networks: int, tmp_path: Path, teacher_run: Path, monkeypatch: Any
) -> None:
    """Student and live teachers are compiled, each by itself and for one shape; all else knows nothing of it."""
    shapes: list[tuple[str, int]] = []

    def eager(module: nn.Module, dynamic: bool, mode: str) -> Any:
        def run(x: Tensor) -> Tensor:
            shapes.append((type(module).__name__, len(x)))
            return module(x)

        return run

    monkeypatch.setattr(torch, "compile", eager)
    own = f"model.teacher={teacher}"
    words = (own, f"model.teacher_weights={teacher_run}", "model.teacher_cache=off", "data.train_size=300")
    plain = train_module.train(compose(*words), tmp_path / "plain")
    assert not shapes
    fast = train_module.train(compose(*words, "compile=true"), tmp_path / "fast")
    one = 300 // 64  # whole batches; the last has 44 images
    assert sorted(shapes) == [("CifarResNet", 64)] * one + [("GraphModule", 64)] * one * (networks - 1)
    assert fast["compiled"] and not plain["compiled"] and fast["student"] == plain["student"]


@pytest.mark.slow
def test_really_compiled_it_learns_the_same(tmp_path: Path, teacher_run: Path) -> None:
    words = (f"model.teacher_weights={teacher_run}", "model.teacher_cache=off", "trainer.max_epochs=2")
    plain = train_module.train(compose(*words), tmp_path / "plain")
    fast = train_module.train(compose(*words, "compile=true"), tmp_path / "fast")
    assert fast["student"]["last"]["test"]["nll"] == pytest.approx(plain["student"]["last"]["test"]["nll"], rel=1e-3)


def test_compile_and_layers(teacher_run: Path, tmp_path: Path) -> None:
    words = ("loss=attention", f"model.teacher_weights={teacher_run}")
    with pytest.raises(UserError, match="compile=true: this loss reads layers"):
        train_module.train(compose(*words, "compile=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="compile must be one of auto, True, False, reduce-overhead, got 'yes please'"):
        build_experiment(compose("compile='yes please'"))


# Two processes

SCRIPT = """
import torch
from kd_lightning.distiller import Distiller
from kd_lightning.train import main

seen, step = [], Distiller.training_step

def training_step(self, batch, i):
    if self.current_epoch == 1:
        seen.append(batch.index.clone())
    return step(self, batch, i)

def on_train_end(self):
    told = {"parameters": dict(self.student.state_dict()), "seen": torch.cat(seen)}
    torch.save(told, f"devices{self.trainer.world_size}-rank{self.global_rank}.pt")

Distiller.training_step, Distiller.on_train_end = training_step, on_train_end
main()
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path, teacher_run: Path) -> None:
    """The same losses step by step, equal weights on both, every sample once an epoch between them."""
    (tmp_path / "tiny_net.py").write_text(NET)
    (tmp_path / "script.py").write_text(SCRIPT)
    words = (
        "model.student=tiny_net.tiny", f"model.teacher_weights={teacher_run}", "data.global_batch_size=64",
        "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "model.teacher_cache=memory",
    )  # fmt: skip
    losses: dict[int, list[float]] = {}
    env = environment() | {"PYTHONPATH": f"{environment()['PYTHONPATH']}:{tmp_path}"}
    for devices in (1, 2):
        command = [sys.executable, "script.py", *TINY, *words, f"trainer.devices={devices}", f"hydra.run.dir={devices}"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        events = EventAccumulator(str(tmp_path / str(devices)))
        events.Reload()
        losses[devices] = [event.value for event in events.Scalars("train/loss")]
    assert len(losses[1]) == 15 and losses[1][-1] < losses[1][0]
    assert losses[2] == pytest.approx(losses[1], rel=1e-5)
    one, first, second = (torch.load(tmp_path / f"devices{d}-rank{r}.pt") for d, r in ((1, 0), (2, 0), (2, 1)))
    for name, value in one["parameters"].items():
        assert torch.equal(first["parameters"][name], second["parameters"][name])
        torch.testing.assert_close(first["parameters"][name], value, rtol=1e-4, atol=1e-6)
    assert sorted(torch.cat([first["seen"], second["seen"]]).tolist()) == list(range(320))


def test_a_profile_lies_in_the_run_directory(tmp_path: Path) -> None:
    train_module.train(compose("loss=ce", "trainer.profiler=simple"), tmp_path / "run")
    assert "run_training_batch" in (tmp_path / "run" / "fit-profile.txt").read_text()
    with pytest.raises(
        UserError, match=r"trainer\.profiler must be one of None, simple, advanced, pytorch, got 'fast'"
    ):
        build_experiment(compose("trainer.profiler=fast"))
