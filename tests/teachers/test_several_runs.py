"""Whole runs with several teachers: what is printed, cached, mapped and refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from kd_lightning import runs
from kd_lightning.distiller import Distiller
from kd_lightning.evaluation.opened import open_run
from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.training.run import train
from tests.conftest import compose

pytestmark = pytest.mark.usefixtures("no_pictures")
TWO = ("model.teacher=[resnet8,resnet8]", "data.train_size=64")


@pytest.fixture
def teachers(teacher_run: Path, tmp_path: Path) -> tuple[str, str]:
    """Two good teachers; the second one's outputs are in reverse order."""
    state = load_file(teacher_run / "student.safetensors")
    for name in ("fc.weight", "fc.bias"):
        state[name] = state[name].flip(0).contiguous()
    save_file(state, tmp_path / "reversed.safetensors")
    return str(teacher_run), str(tmp_path / "reversed.safetensors")


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_both_are_asked_measured_and_fused(cache: str, cli: Any, teachers: tuple[str, str]) -> None:
    done = cli(*TWO, f"model.teacher_weights=[{teachers[0]},{teachers[0]}]", f"model.teacher_cache={cache}")
    assert done.status == 0, done.err
    assert re.search(r"teacher: \d\d\.\d\d% right on validation samples", done.out)
    assert re.search(r"fused: ECE 0\.\d+; same answer of teachers 1 and 0 100\.00%", done.out)
    metrics = runs.find(Path("outputs/train"))[0].metrics
    alone = runs.read(Path(teachers[0])).student["test"]
    assert metrics["teacher"]["test"]["accuracy"] == pytest.approx(alone["accuracy"])
    assert metrics["teacher"]["test"]["ece"] == pytest.approx(alone["ece"], abs=1e-4)


def test_stored_as_float16_their_answers_are_fused_in_bf16(cli: Any, teachers: tuple[str, str]) -> None:
    """Autocast stacks no float16 on a CPU."""
    weights = f"model.teacher_weights=[{teachers[0]},{teachers[0]}]"
    done = cli(*TWO, weights, "model.teacher_cache=memory", "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    assert done.status == 0, done.err


@pytest.mark.parametrize("loss", ["kd_std", "kd_combined"])
def test_each_has_its_own_order_of_classes(loss: str, cli: Any, teachers: tuple[str, str]) -> None:
    """And a combination of one's own takes `fusion`, as all losses do."""
    Path("my_conf/loss").mkdir(parents=True)
    Path("my_conf/loss/kd_combined.yaml").write_text(
        "_target_: kd_lightning.losses.Combination\nalpha: 1.0\nce_weight: 0.1\nfusion: logits\n"
        "kd: {_target_: kd_lightning.losses.KD, temperature: 4.0, alpha: 0.9}\n"
        "dist: {_target_: kd_lightning.losses.DIST, temperature: 1.0, alpha: 0.5}\n"
    )
    names = [str(n) for n in range(10)]
    orders = f"model.teacher_classes=[[{','.join(names)}],[{','.join(reversed(names))}]]"
    weights = f"model.teacher_weights=[{','.join(teachers)}]"
    done = cli("--config-dir", "my_conf", f"loss={loss}", *TWO, weights, orders, "model.teacher_cache=off")
    assert done.status == 0, done.err
    assert "same answer of teachers 1 and 0 100.00%" in done.out
    if loss == "kd_combined":
        assert {"kd", "dist"} <= set(runs.find(Path("outputs/train"))[0].metrics["train"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("loss=sp", ("model.teacher", "a loss of features needs exactly one teacher")),
        ("loss=kd_attention", ("a loss of features needs exactly one teacher",)),
        ("loss.fusion=mean", ("loss.fusion", "one of probabilities")),
        ("model.teacher_weighting=[1,2,3]", ("model.teacher_weighting", "3 weights for 2 teachers")),
        ("model.teacher_classes=[a,b]", ("model.teacher_classes[0]", "lacks '0'")),
        ("model.teacher_input_size=[32,4]", ("model.teacher_input_size[1]", ">= 8", "got 4")),
        ("model.teacher_normalize=[imagnet,null]", ("model.teacher_normalize[0]", "did you mean 'imagenet'")),
    ],
)
def test_one_line_before_training(words: str, told: tuple[str, ...], cli: Any, teachers: tuple[str, str]) -> None:
    done = cli(*TWO, f"model.teacher_weights={teachers[0]}", *words.split())
    assert done.status == 2 and len(done.err.splitlines()) == 1
    assert all(word in done.err for word in told), done.err


def test_learned_weights_teach_as_they_are_measured_and_are_found_again(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One good teacher, and one that confuses its classes: what is measured is what the last epoch's weights say."""
    state = load_file(teacher_run / "student.safetensors")
    state["fc.weight"] = state["fc.weight"].roll(1, 0)
    save_file(state, tmp_path / "wrong.safetensors")
    epochs: list[Tensor] = []
    log = Distiller.on_validation_epoch_end

    def remember(self: Distiller) -> None:
        assert isinstance(self.teacher, Ensemble) and self.teacher.fusion is self.loss.fusion, "one object"
        if self.trainer.state.fn == "fit":
            epochs.append(self.loss.fusion.theta.detach().clone())
        log(self)

    monkeypatch.setattr(Distiller, "on_validation_epoch_end", remember)
    words = ("model.teacher_weighting=learned", "model.teacher_cache=off", "trainer.max_epochs=3", "optimizer.lr=0.5")
    weights = f"model.teacher_weights=[{teacher_run},{tmp_path / 'wrong.safetensors'}]"
    metrics = train(compose(TWO[0], weights, *words), tmp_path / "run")
    learned = metrics["teacher"]["weighting"]
    assert len(epochs) == 3 and learned == pytest.approx(epochs[-1].softmax(0).tolist())
    assert learned[0] > 0.6 and not torch.equal(epochs[0], epochs[-1])

    opened = open_run(tmp_path / "run", [])
    found = opened.find_teacher().teacher
    for split, loader in {"val": opened.data.val_dataloader(), "test": opened.data.test_dataloader()}.items():
        told = [(found.evaluate(batch).logits, batch.y) for batch in loader]
        nll = F.cross_entropy(torch.cat([logits for logits, _ in told]), torch.cat([y for _, y in told]))
        assert metrics["teacher"][split]["nll"] == pytest.approx(float(nll), rel=1e-4), split


MINE = """
from torch.nn import functional as F
from kd_lightning.losses import Method

class Mine(Method):
    def forward(self, student, teacher, batch):
        return F.mse_loss(student.logits, teacher.logits)
"""


def test_a_method_of_ones_own_with_a_teacher_of_other_classes(
    cli: Any, teachers: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_method.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_conf/loss").mkdir(parents=True)
    Path("my_conf/loss/mine.yaml").write_text("_target_: my_method.Mine\n")
    order = f"model.teacher_classes=[{','.join(str(n) for n in reversed(range(10)))}]"
    words = ("data.train_size=64", "loss=mine", order, f"model.teacher_weights={teachers[1]}")
    done = cli("--config-dir", "my_conf", *words, "model.teacher_cache=off")
    assert done.status == 0, done.err
    metrics = runs.find(Path("outputs/train"))[0].metrics
    straight = runs.read(Path(teachers[0])).student["test"]
    assert metrics["train"]["mine"] > 0 and metrics["teacher"]["test"]["accuracy"] == pytest.approx(
        straight["accuracy"]
    )


@pytest.mark.parametrize("loss", ["srrl", "simkd"])
def test_a_classifier_of_another_order(loss: str, cli: Any, teachers: tuple[str, str]) -> None:
    """SRRL compares within the teacher's own order; SimKD would deploy it, and is refused."""
    order = f"model.teacher_classes=[{','.join(str(n) for n in reversed(range(10)))}]"
    done = cli(f"loss={loss}", "data.train_size=64", f"model.teacher_weights={teachers[1]}", order)
    if loss == "simkd":
        assert done.status == 2 and done.err.startswith("error: model.teacher_classes: this loss deploys")
        return
    assert done.status == 0, done.err
    reversed_run = runs.find(Path("outputs/train"))[0]
    assert cli("loss=srrl", "data.train_size=64", f"model.teacher_weights={teachers[0]}").status == 0
    straight = next(r for r in runs.find(Path("outputs/train")) if r.path != reversed_run.path)
    a, b = (torch.tensor([r.metrics["train"][k] for k in ("feature", "head")]) for r in (reversed_run, straight))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
