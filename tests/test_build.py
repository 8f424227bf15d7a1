"""What the builder makes of errors: one line for a value that was refused, a traceback for a fault in code."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from kd_lightning.config import build
from kd_lightning.models import create_model
from kd_lightning.training.build import build_experiment
from kd_lightning.training.optimizer import build_optimizer
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import UserError
from tests.conftest import compose


class Broken:
    """Has a fault of its own."""

    def __init__(self, size: int = 1) -> None:
        self.size = size + {}["not there"]  # type: ignore[var-annotated]


REFUSED = {
    "no such target": ({"_target_": "kd_lightning.losses.Nope"}, "Nope"),
    "no such module": ({"_target_": "nowhere.Nope"}, "nowhere"),
    "an argument that it does not take": ({"_target_": "kd_lightning.losses.KD", "foo": 1}, "foo"),
    "a value that we refuse": ({"_target_": "kd_lightning.losses.KD", "temperature": "abc"}, "x.temperature"),
    "a value that torch refuses": ({"_target_": "torch.nn.Conv2d", "in_channels": 3}, "out_channels"),
    "a value that torch refuses inside": (
        {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 1, "groups": 2},
        "divisible",
    ),
    "a value that Lightning refuses": ({"_target_": "lightning.pytorch.Trainer", "strategy": "abc"}, "strategy"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_value_is_one_line(name: str) -> None:
    node, word = REFUSED[name]
    with pytest.raises(UserError, match=r"^(x|loss)") as e:
        build(OmegaConf.create(node), "x")
    assert word.removeprefix("x.") in str(e.value) and "\n" not in str(e.value)


def test_a_fault_in_code_keeps_its_traceback() -> None:
    with pytest.raises(KeyError, match="not there") as e:
        build(OmegaConf.create({"_target_": f"{__name__}.Broken"}), "x")
    assert Path(e.traceback[-1].path) == Path(__file__)
    with pytest.raises(UserError, match="unexpected keyword"):
        build(OmegaConf.create({"_target_": f"{__name__}.Broken", "sise": 2}), "x")


def test_switches_of_an_optimizer_are_true_or_false() -> None:
    config = compose("optimizer.nesterov=abc")
    with pytest.raises(UserError, match=r"optimizer\.nesterov must be one of True, False, got 'abc'"):
        build_optimizer(config.optimizer, config.scheduler, 1, 64)


@pytest.mark.parametrize(("student", "wanted"), [("resnet8", "bf16-mixed"), ("shufflenetv2", "32-true")])
def test_depthwise_convolutions_run_in_float32_on_a_cpu_that_is_fast_in_bf16(student, wanted, monkeypatch) -> None:
    monkeypatch.setattr(hardware, "fast_bf16", lambda accelerator: True)
    words = ("data=digits", "loss=ce", "trainer.accelerator=cpu")
    assert (
        build_experiment(compose(*words, f"model.student={student}", "trainer.precision=auto")).trainer.precision
        == wanted
    )


def test_a_student_that_is_only_measured_has_no_best_epoch(tmp_path: Path) -> None:
    torch.save(create_model("resnet8", 10, image_size=8).state_dict(), tmp_path / "weights.pt")
    words = ("loss=ce", "select=best", f"model.student_weights={tmp_path / 'weights.pt'}")
    assert build_experiment(compose(*words, "trainer.max_epochs=0")).select == "last"
    assert build_experiment(compose(*words)).select == "best"
