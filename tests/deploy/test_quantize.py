"""Rounded students: built for every net, calibrated, trained, and the same with integers inside."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kd_lightning import runs
from kd_lightning.deploy.quantization.integer_graph import integer_graph
from kd_lightning.deploy.quantization.quantize import LEVELS, Rounding, calibrate, quantized, round_weight, weight_scale
from kd_lightning.deploy.quantization.trace import trace
from kd_lightning.deploy.sparsity import sparsity
from kd_lightning.deploy.steps import prune, quantize
from kd_lightning.evaluation.opened import OpenedRun, open_run
from kd_lightning.models import create_model, model_names
from kd_lightning.models.hooks import logits_of
from kd_lightning.runs.students import load_student
from kd_lightning.utils.checks import UserError
from tests.deploy.nets import Capricious

QUICK = {"resnet8", "resnet20", "resnet8x4", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in model_names()])
def test_every_net_is_nearly_itself_when_rounded(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, 10, image_size=16)
    x = torch.randn(16, 3, 16, 16)
    with torch.no_grad():
        model(x)  # running statistics of its own
        expected = model.eval()(x)
        student = quantized(model, x)
        calibrate(student, [x])
        rounded = student(x)
        integers = integer_graph(student)(x)
    assert 0 < (rounded - expected).norm() < 0.4 * expected.norm()
    assert (integers - rounded).norm() < 0.4 * expected.norm()
    assert student(x[:3]).shape == (3, 10)


TOKENS = {"ids": torch.arange(1, 9).view(2, 4), "mask": torch.ones(2, 4, dtype=torch.bool)}


@pytest.mark.parametrize(
    ("name", "facts", "x"),
    [("text_bilstm", {"vocabulary": 9}, TOKENS), ("audio_crnn", {"bands": 16, "frames": 20}, torch.rand(2, 1, 16, 20))],
)
def test_a_recurrent_layer_stays_in_floats(name: str, facts: dict[str, int], x: Any) -> None:
    torch.manual_seed(0)
    model = create_model(name, 3, **facts).eval()
    with torch.no_grad():
        expected = logits_of(model, x)
        student = quantized(model, x)
        calibrate(student, [x])
        assert 0 < (logits_of(student, x) - expected).norm() < 0.2 * expected.norm()


def test_weights_take_so_many_levels_in_each_channel() -> None:
    weight = torch.randn(5, 3, 3, 3) * torch.tensor([1, 10, 0.1, 1e-3, 0]).reshape(5, 1, 1, 1)
    levels = round_weight(weight) / weight_scale(weight).reshape(5, 1, 1, 1)
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert levels.flatten(1).abs().amax(1).round().tolist() == [LEVELS] * 4 + [0]


@pytest.mark.parametrize("left", [0.0, 1e-9])
def test_a_channel_without_weights_keeps_its_bias(left: float) -> None:
    """As pruning leaves some; their bias, in steps of the weights' scale, did not fit into int32 and was lost."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        model[2].weight[1:3] *= left
        model[2].bias.copy_(torch.tensor([0.3, 1.2, -1.2, -0.1]))
        x = torch.randn(16, 3, 8, 8)
        student = quantized(model, x)
        calibrate(student, [x])
        torch.testing.assert_close(integer_graph(student)(x), student(x), atol=0.02, rtol=0)


def test_zero_is_exact_whatever_the_range() -> None:
    for low, high in ((-1.3, 2.7), (0.4, 2.0), (-3.0, -1.0)):
        rounding = Rounding()
        rounding.set_range(low, high)
        x = torch.tensor([0.0, low, high])
        torch.testing.assert_close(rounding(x), x, atol=float(rounding.scale), rtol=0)
        assert rounding(x)[0] == 0


def test_gradients_pass_the_rounding() -> None:
    x = torch.randn(8, 3, 8, 8)
    student = quantized(create_model("resnet8", 10, image_size=8), x)
    calibrate(student, [x])
    student(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in student.modules())


def test_a_graph_that_depends_on_values_cannot_be_rounded() -> None:
    class Numpy(Capricious):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dark(torch.from_numpy(x.numpy()).mean((2, 3)))

    with pytest.raises(UserError, match="cannot trace Numpy"):
        trace(Numpy(10), torch.zeros(2, 3, 8, 8))


def test_quantized_after_training_it_is_a_run_that_says_nearly_the_same(run: OpenedRun, int8_run: Path) -> None:
    rounded = runs.read(int8_run)
    before = run.run.student["test"]["accuracy"]
    assert rounded.metrics["student"]["last"]["test"]["accuracy"] == pytest.approx(before, abs=0.03)
    assert rounded.metrics["epochs"] == 0 and rounded.metrics["compression"]["quantize"] == "int8"
    again, _ = load_student(int8_run)
    assert sum(isinstance(m, Rounding) for m in again.modules()) > 5


def test_training_through_the_rounding_is_a_distillation(run: OpenedRun, int8_run: Path, tmp_path: Path) -> None:
    out = quantize(run, tmp_path / "qat", qat=True, distill="teacher", overrides=["trainer.max_epochs=2"])
    trained = runs.read(out)
    assert trained.config.loss._target_.endswith("KD") and "teacher" in trained.metrics
    assert trained.metrics["epochs"] == 2
    after, before = trained.metrics["student"]["last"], runs.read(int8_run).metrics["student"]["last"]
    assert after["test"]["accuracy"] >= before["test"]["accuracy"] - 0.01
    started, ended = (dict(open_run(path).student.named_parameters()) for path in (int8_run, out))
    assert any((started[name] != ended[name]).any() for name in ended)


def test_zeros_stay_through_rounding_and_training(run: OpenedRun, tmp_path: Path) -> None:
    sparse = prune(run, 0.6, tmp_path / "sparse")
    out = quantize(open_run(sparse), tmp_path / "qat", qat=True, distill="student")
    assert sparsity(load_student(out)[0]) >= 0.6 - 1e-3
    assert runs.read(out).config.model.teacher_weights == str(sparse)
