"""Checkpoints as people keep them: each is loaded whole, or refused with the reason."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.runs.students import weights_file
from kd_lightning.utils.checks import UserError

State = dict[str, Tensor]


def net(seed: int = 0, num_classes: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return create_model("resnet8", num_classes, image_size=8)


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + k: v for k, v in state.items()}


def renamed_head(name: str) -> Callable[[State], State]:
    return lambda state: {k.replace("fc.", f"{name}."): v for k, v in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "raw": lambda state: state,
    **{prefix: prefixed(prefix) for prefix in ("module.", "model.", "_orig_mod.", "student.", "net.", "backbone.")},
    "several prefixes": prefixed("module.model._orig_mod."),
    "compiled inside": lambda state: {k.replace("layer1.", "layer1._orig_mod."): v for k, v in state.items()},
    **{f"head {name}": renamed_head(name) for name in ("linear", "classifier", "head", "classifier.1")},
    "head and prefix": lambda state: prefixed("module.")(renamed_head("linear")(state)),
    "nested": lambda state: {"state_dict": state, "epoch": 3, "best_acc": 0.93},
    "nested model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
    "nested net": lambda state: {"net": prefixed("module.")(state), "acc": 93.0, "epoch": 1},
    "nested, other name": lambda state: {"weights": state, "epoch": 3},
    "beside other parts": lambda state: {
        "state_dict": prefixed("student.")(state) | {"loss.weight": torch.ones(3), "scores.total": torch.zeros(())}
    },
    "without counters": lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_loads_all(form: Callable[[State], Any], tmp_path: Path) -> None:
    source, model = net(1), net(2)
    torch.save(form(source.state_dict()), tmp_path / "weights.pt")
    load_weights(model, tmp_path / "weights.pt")
    assert same(model, source)


@pytest.mark.parametrize("names", [("student.", "teacher."), ("teacher.", "student."), ("model.", "ema.")])
def test_one_of_two_networks_is_not_guessed(tmp_path: Path, names: tuple[str, str]) -> None:
    """Self-distillation and averaged weights leave two; the one with the shorter name, or the first, was taken."""
    one, other = names
    both = prefixed(one)(net(1).state_dict()) | prefixed(other)(net(2).state_dict())
    torch.save({"state_dict": both}, tmp_path / "two.ckpt")
    with pytest.raises(UserError, match=r"two\.ckpt holds 2 networks that fit, below \w+\., \w+\.; save the one"):
        load_weights(net(3), tmp_path / "two.ckpt")


def test_of_two_networks_only_one_may_fit(tmp_path: Path) -> None:
    """A narrow student beside the teacher, in whatever order."""
    narrow, teacher, model = create_model("resnet8x4", 10, image_size=8), net(2), net(3)
    both = prefixed("a.")(narrow.state_dict()) | prefixed("teacher.")(teacher.state_dict())
    torch.save({"state_dict": both}, tmp_path / "two.ckpt")
    load_weights(model, tmp_path / "two.ckpt")
    assert same(model, teacher)


def test_a_wrong_network_is_not_told_as_two(tmp_path: Path) -> None:
    torch.save(create_model("densenet121", 10, image_size=65).state_dict(), tmp_path / "dense.pt")
    with pytest.raises(UserError, match=r"does not fit CifarResNet: missing: "):
        load_weights(net(), tmp_path / "dense.pt")


def test_the_part_that_the_key_names_is_taken(tmp_path: Path) -> None:
    student, teacher, model = net(1), net(2), net(3)
    torch.save({"teacher": teacher.state_dict(), "student": student.state_dict()}, tmp_path / "parts.pt")
    load_weights(model, tmp_path / "parts.pt")
    assert same(model, teacher)
    load_weights(model, tmp_path / "parts.pt", "model.student_weights")
    assert same(model, student)


def test_a_students_peers_are_not_taken_for_it(tmp_path: Path) -> None:
    source, model = net(1), net(3)
    peers = prefixed("loss.method._peers.0.")(net(2).state_dict())
    torch.save({"state_dict": peers | prefixed("student.")(source.state_dict())}, tmp_path / "last.ckpt")
    load_weights(model, tmp_path / "last.ckpt")
    assert same(model, source)


def test_safetensors(tmp_path: Path) -> None:
    source, model = net(1), net(2)
    save_file(prefixed("module.")(source.state_dict()), tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert same(model, source)


def test_run_directory_and_its_files(teacher_run: Path) -> None:
    models = [net(i) for i in range(2)]
    assert weights_file(teacher_run, "model.teacher_weights") == teacher_run / "student.safetensors"
    for model, path in zip(models, (weights_file(teacher_run, ""), teacher_run / "last.ckpt"), strict=True):
        load_weights(model, path)
    assert same(models[0], models[1]), "the selected student is the last one, unless select=best"


def test_a_students_file_that_was_changed_is_refused(teacher_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(teacher_run, tmp_path / "run"))
    file = run / "student.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"student\.safetensors is damaged: its checksum"):
        weights_file(run, "model.teacher_weights")
    with pytest.raises(UserError, match=r"model\.teacher_weights: .* is a folder without a finished run"):
        weights_file(tmp_path, "model.teacher_weights")


def test_checkpoint_of_a_strangers_lightning_module(tmp_path: Path) -> None:
    class Theirs(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.extra = net(1), nn.Linear(2, 2)

    theirs, model = Theirs(), net(2)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(theirs)
    trainer.save_checkpoint(tmp_path / "theirs.ckpt")
    load_weights(model, tmp_path / "theirs.ckpt")
    assert same(model, theirs.net)


def test_real_teacher_of_another_library(tmp_path: Path) -> None:
    """`{"state_dict": {"module.…": …}}` with `linear` for the classifier, as in Idelbayev's CIFAR-10 ResNets."""
    source, model = create_model("resnet56", 10), create_model("resnet56", 10)
    state = prefixed("module.")(renamed_head("linear")(source.state_dict()))
    torch.save({"state_dict": state, "best_prec1": 94.4}, tmp_path / "resnet56.th")
    load_weights(model, tmp_path / "resnet56.th")
    assert same(model, source)


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "two classifiers": (
        lambda s: {k: v for k, v in s.items() if k[:3] != "fc."} | head(s, "cls_a.") | head(s, "cls_b."),
        "missing: fc.bias, fc.weight; unexpected: cls_a.bias, cls_a.weight, cls_b.bias, cls_b.weight",
    ),
    "no classifier": (lambda s: {k: v for k, v in s.items() if k[:3] != "fc."}, "missing: fc.bias, fc.weight"),
    "other classifier": (
        lambda s: s | {"fc.weight": torch.zeros(100, 64), "fc.bias": torch.zeros(100)},
        r"wrong shape: fc.bias \[100\] instead of \[10\], fc.weight \[100, 64\] instead of \[10, 64\]",
    ),
    "other classifier by another name": (
        lambda s: (
            {k: v for k, v in s.items() if k[:3] != "fc."}
            | {"linear.weight": torch.zeros(100, 64), "linear.bias": torch.zeros(100)}
        ),
        r"wrong shape: fc.bias \[100\] instead of \[10\]",
    ),
    "one more layer": (lambda s: s | {"extra.weight": torch.zeros(1)}, "unexpected: extra.weight"),
    "one layer less": (lambda s: {k: v for k, v in s.items() if "layer1.0.conv1" not in k}, "missing: layer1.0.conv1"),
    "two models": (lambda s: {"ema": s, "raw": s}, "found 2 in: ema, raw"),
    "none": (lambda s: {"epoch": 3}, "found 0 in: epoch"),
    "a list": (lambda s: list(s.values()), "found 0 in: list"),
}


def head(state: State, prefix: str) -> State:
    return {k.replace("fc.", prefix): v for k, v in state.items() if k.startswith("fc.")}


@pytest.mark.parametrize("form, message", REFUSED.values(), ids=REFUSED)
def test_refuses_what_is_ambiguous(form: Callable[[State], Any], message: str, tmp_path: Path) -> None:
    torch.save(form(net(1).state_dict()), tmp_path / "weights.pt")
    model = net(2)
    with pytest.raises(UserError, match=message):
        load_weights(model, tmp_path / "weights.pt")
    assert same(model, net(2))  # nothing was loaded in part


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    ours = {k: v for k, v in a.state_dict().items() if not k.endswith("num_batches_tracked")}
    return all(torch.equal(v, theirs[k]) for k, v in ours.items())
