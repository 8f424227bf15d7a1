"""Smaller students: fewer channels or fewer weights, and runs like any other."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from kd_lightning import runs
from kd_lightning.deploy import pruned
from kd_lightning.deploy.prune import prune_channels, shapes
from kd_lightning.deploy.sparsity import prune_weights, sparse, sparsity
from kd_lightning.deploy.steps import prune
from kd_lightning.evaluation.opened import OpenedRun, open_run
from kd_lightning.models import count_macs, create_model, model_names
from kd_lightning.runs.students import load_student
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
from tests.conftest import compose

QUICK = {"resnet8", "resnet20", "resnet8x4", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"}
NOT = {"shufflenetv1"}  # grouped convolutions whose channels are shuffled


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in model_names()])
def test_every_net_runs_with_fewer_channels_and_is_rebuilt_from_their_numbers(name: str) -> None:
    torch.manual_seed(0)
    model, x = create_model(name, 10, image_size=16), torch.randn(2, 3, 16, 16)
    if name in NOT:
        with pytest.raises(UserError, match="prune single weights, without --structured"):
            prune_channels(model, torch.zeros(2, 3, 16, 16), 0.5)
        return
    smaller = prune_channels(model, torch.zeros(2, 3, 16, 16), 0.5)
    assert count_macs(smaller, x[:1]) < 0.6 * count_macs(model, x[:1])
    rebuilt = pruned(10, of=name, image_size=16, layers=shapes(smaller, shapes(model)))
    rebuilt.load_state_dict(smaller.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(rebuilt.eval()(x), smaller.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet20", "vgg8"])
def test_channels_that_say_nothing_are_the_ones_that_go(name: str) -> None:
    """A quarter of each inner layer is silenced; without it the network says the same."""
    torch.manual_seed(0)
    model = create_model(name, 10, image_size=16).eval()
    inner = {"resnet20": "conv1", "vgg8": ""}[name]
    modules = dict(model.named_modules())
    for layer, module in modules.items():
        if isinstance(module, torch.nn.Conv2d) and (layer.endswith(f".{inner}") or not inner):
            norm = modules[layer.replace("conv1", "bn1") if inner else layer[:-1] + str(int(layer[-1]) + 1)]
            silent = torch.randperm(module.out_channels)[: module.out_channels // 4]
            with torch.no_grad():
                for tensor in (module.weight, norm.weight, norm.bias):
                    tensor[silent] = 0
    x = torch.randn(4, 3, 16, 16)
    smaller = prune_channels(model, x, 0.25)
    assert count_macs(smaller, x[:1]) < count_macs(model, x[:1])
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(smaller(x), expected, atol=1e-4, rtol=1e-4)


def test_the_least_weights_of_the_whole_network_become_zero() -> None:
    torch.manual_seed(0)
    model = create_model("resnet8", 10)
    smaller = prune_weights(model, 0.7)
    assert sparsity(smaller) == pytest.approx(0.7, abs=1e-4) and sparsity(model) == 0
    assert smaller.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_zeros_stay_zero_in_training(optimizer: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    model = sparse(10, of="resnet8", image_size=8)
    model.load_state_dict(prune_weights(create_model("resnet8", 10, image_size=8), 0.7).state_dict())
    before = [w.clone() for w in model.parameters()]
    more = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    steps = optimizer(model.parameters(), lr=0.1, weight_decay=0.1, **more)
    for _ in range(3):
        model(torch.randn(8, 3, 8, 8)).square().sum().backward()
        steps.step()
    assert sparsity(model) == pytest.approx(0.7, abs=1e-4)
    assert all((w != b).any() for w, b in zip(model.parameters(), before, strict=True))


def test_weights_go_in_growing_steps_and_stay_gone(run: OpenedRun, tmp_path: Path) -> None:
    out = prune(run, 0.8, tmp_path / "sparse", steps=2, distill="teacher")
    first, last = runs.read(out / "steps" / "1"), runs.read(out)
    assert first.metrics["compression"]["zeros"] == pytest.approx(0.8 * (1 - 0.5**3), abs=1e-3)
    assert last.metrics["compression"]["zeros"] == pytest.approx(0.8, abs=1e-3)
    assert sparsity(load_student(out)[0]) == pytest.approx(0.8, abs=1e-3)
    for ratio in (0.5, 0.8):
        with pytest.raises(UserError, match=rf"--prune {ratio}: 80% of the weights in .*sparse are zero already"):
            prune(open_run(out), ratio, tmp_path / "again")
    weights = last.config.model.teacher_weights
    assert weights == os.path.relpath(Path(weights).resolve()), "the same for the runs of all seeds"
    assert "teacher" in last.metrics and last.config.optimizer.lr == pytest.approx(0.1 * run.config.optimizer.lr)


class GroupNorms(nn.Module):
    """A network with a layer of channels that we cannot make anew."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(2, 16), nn.ReLU(), nn.Conv2d(16, 8, 3))
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.body(x).mean((2, 3)))
        return logits


def test_channels_of_a_layer_that_cannot_be_made_anew_are_told(tmp_path: Path) -> None:
    train(compose("loss=ce", f"model.student={__name__}.GroupNorms"), tmp_path / "run")
    with pytest.raises(UserError, match=r"GroupNorms has layers whose channels cannot be removed: body\.1"):
        prune(open_run(tmp_path / "run"), 0.5, tmp_path / "small", structured=True)
    assert not (tmp_path / "small").exists()


MORE = ["trainer.max_epochs=3", "optimizer.lr=0.05"]


def test_a_pruned_run_is_pruned_again_from_its_first_width(run: OpenedRun, tmp_path: Path) -> None:
    once = open_run(prune(run, 0.5, tmp_path / "once", structured=True, overrides=MORE))
    twice = runs.read(
        prune(once, 0.5, tmp_path / "twice", structured=True, distill="student", overrides=["trainer.max_epochs=1"])
    )
    widths = [s.config.model.student_kwargs.layers["layer2.0.conv1"][1] for s in (once.run, twice)]
    assert widths == [16, 8] and twice.config.model.student_kwargs.of == "resnet8"
    assert twice.metrics["student"]["macs"] < once.run.metrics["student"]["macs"]
    assert twice.config.model.teacher == "kd_lightning.deploy.pruned" and twice.metrics["teacher"]["macs"] > 0
    model, _ = load_student(twice.path)
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
