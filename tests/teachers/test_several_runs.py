"""Whole runs with several teachers: what is printed, cached, mapped and refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_lightning import runs

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
    assert re.search(r"teacher: \d\d\.\d\d% right on validation images", done.out)
    assert re.search(r"fused: ECE 0\.\d+; same answer of teachers 1 and 0 100\.00%", done.out)
    metrics = runs.find(Path("outputs/train"))[0].metrics
    alone = runs.read(Path(teachers[0])).metrics["student"]["best"]["test"]
    assert metrics["teacher"]["test"]["accuracy"] == pytest.approx(alone["accuracy"])
    assert metrics["teacher"]["test"]["ece"] == pytest.approx(alone["ece"], abs=1e-4)


@pytest.mark.parametrize("loss", ["kd_std", "kd_combined"])
def test_each_has_its_own_order_of_classes(loss: str, cli: Any, teachers: tuple[str, str]) -> None:
    """And a combination of one's own takes `fusion`, as all losses do."""
    Path("my_conf/loss").mkdir(parents=True)
    Path("my_conf/loss/kd_combined.yaml").write_text(
        "_target_: kd_lightning.losses.Combination\nalpha: 1.0\nce_weight: 0.1\nfusion: logits\n"
        "weights: {kd: 0.9, dist: 0.5}\nkd: {_target_: kd_lightning.losses.KD, temperature: 4.0}\n"
        "dist: {_target_: kd_lightning.losses.DIST, temperature: 1.0}\n"
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
