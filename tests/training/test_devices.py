"""Which devices and processes a run takes, and how they are used."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import DistStoreError

from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.training.ddp import Ddp
from kd_lightning.training.optimizer import build_optimizer, can_fuse
from kd_lightning.training.trainer import build_trainer, resolve_trainer
from kd_lightning.utils import gpus, hardware
from kd_lightning.utils.checks import UserError
from tests.conftest import compose, environment


def test_each_run_has_a_gpu_of_its_own(tmp_path: Path) -> None:
    """Until there are more runs than GPUs; one that ended, however it did, gives its own back."""
    code = "import sys; from kd_lightning.utils.gpus import own_gpu; print(own_gpu(2), flush=True); sys.stdin.read()"
    environ = environment() | {"TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    runs: list[subprocess.Popen[str]] = []

    def another() -> int:
        command = [sys.executable, "-c", code]
        runs.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ))
        said = runs[-1].stdout
        assert said is not None
        return int(said.readline())

    try:
        assert [another() for _ in range(5)] == [0, 1, 0, 1, 0], "the one that the fewest have"
        runs[1].kill()
        runs[1].wait()
        assert another() == 1
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def test_a_gpu_has_one_name_whoever_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [gpus._name(0), gpus._name(1)] == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus._name(1) == "1"


def test_several_processes_send_no_more_than_they_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "usable_cores", lambda: 8)
    node = resolve_trainer(compose("trainer.devices=2").trainer)
    for has_buffers in (True, False):
        trainer, _ = build_trainer(node, tmp_path, has_val=False, has_buffers=has_buffers)
        assert isinstance(trainer.strategy, Ddp)
        sent = trainer.strategy._ddp_kwargs
        assert sent.pop("gradient_as_bucket_view") and list(sent.values()) == [False] * (not has_buffers)
    trainer, _ = build_trainer(resolve_trainer(compose().trainer), tmp_path, has_val=False)
    assert not isinstance(trainer.strategy, DDPStrategy)


def test_a_process_that_waits_in_vain_says_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(self: DDPStrategy) -> None:
        raise DistStoreError("Timed out after 1801 seconds waiting for clients. 1/2 clients joined.")

    monkeypatch.setattr(DDPStrategy, "setup_distributed", nobody)
    with pytest.raises(UserError, match=r"rank 0 on .* waited in vain .*1/2 clients joined.*NODE_RANK"):
        Ddp().setup_distributed()


def test_fused_optimizers_where_the_device_has_them() -> None:
    cfg = compose("optimizer=adamw")
    parameter = [torch.nn.Parameter(torch.zeros(2))]
    for fused in (True, False):
        optimizer, _ = build_optimizer(cfg.optimizer, cfg.scheduler, 1, 64, fused=fused)
        assert bool(optimizer(parameter).defaults["fused"]) == fused
    plain = compose(
        "optimizer._target_=torch.optim.Rprop", "~optimizer.momentum", "~optimizer.weight_decay", "~optimizer.nesterov"
    )
    optimizer, _ = build_optimizer(plain.optimizer, plain.scheduler, 1, 64, fused=True)
    assert "fused" not in optimizer(parameter).defaults
    trainer = {"accelerator": "gpu", "precision": "bf16-mixed", "gradient_clip_val": 1.0}
    for change, can in (({}, True), ({"accelerator": "cpu"}, False), ({"precision": "16-mixed"}, False)):
        assert can_fuse(compose(*[f"trainer.{k}={v}" for k, v in (trainer | change).items()]).trainer) == can


def test_cuda_graphs_are_for_gpus_and_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.resolve_compile("reduce-overhead", "gpu", 10) == "reduce-overhead"
    assert hardware.resolve_compile("auto", "gpu", 10) is None
    assert hardware.resolve_compile("auto", "gpu", 1e5) == hardware.resolve_compile(True, "cpu", 1) == "default"
    with pytest.raises(UserError, match=r"compile=reduce-overhead records CUDA graphs and needs a GPU"):
        hardware.resolve_compile("reduce-overhead", "cpu", 1e5)
    modes: list[str | None] = []
    begun: list[None] = []
    monkeypatch.setattr(torch, "compile", lambda model, dynamic, mode: modes.append(mode) or model.forward)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(None))
    for mode in ("default", "reduce-overhead"):
        extract = FeatureExtractor(torch.nn.Linear(2, 2))
        extract.compile(4, mode)
        extract(torch.zeros(4, 2), training=4)
        extract(torch.zeros(3, 2), training=3)
    assert modes == [None, "reduce-overhead"] and len(begun) == 1, "of graphs, each full batch begins a step"
