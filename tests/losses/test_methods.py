"""What every preset of `conf/loss` must do: learn, train its parameters, go on where it stopped, deploy the student."""

import copy
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from kd_lightning import losses, runs
from kd_lightning.config import CONF_DIR
from kd_lightning.models import create_model
from kd_lightning.train import train
from kd_lightning.training.build import build_parts
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError
from tests.conftest import compose
from tests.losses.learner import NO_TEACHER, PRESETS, SMALL, Learner, digits

every = pytest.mark.parametrize("preset", PRESETS)
WITH_PARAMETERS = ["ab", "cc", "crd", "crd_kd", "ctkd", "dml", "fitnets", "ft", "ofd", "reviewkd", "srrl", "vid"]
COMBINED = ["crd_kd", "kd_attention"]
OF_LOGITS = ["kd", "kd_cifar", "kd_std", "kd_adaptive", "dkd", "dkd_std", "dist", "nkd", "wsld", "rld", "mlld", "deit"]


@every
def test_learns(preset: str) -> None:
    """The loss falls; the method's parameters all get gradients and change; the teacher does not."""
    run = Learner(preset)
    assert_says_what_it_needs(preset, run)
    before, teacher = run.own(), copy.deepcopy(run.teacher_model.state_dict())
    terms = [run.step() for _ in range(12)]
    assert all(math.isfinite(v) for t in terms for v in t.values())
    assert min(t["loss"] for t in terms[-3:]) < terms[0]["loss"]
    assert sorted(before) == [] if preset not in WITH_PARAMETERS else before
    for name, p in run.loss.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name
        assert not torch.equal(p, before[name]), name
    after = run.teacher_model.state_dict()
    assert all(torch.equal(after[name], teacher[name]) for name in teacher)


def assert_says_what_it_needs(preset: str, run: Learner) -> None:
    assert run.loss.needs_teacher == (preset not in NO_TEACHER)
    if preset in OF_LOGITS or preset in NO_TEACHER or preset == "ctkd":
        assert run.loss.teacher_layers == ()  # the teacher's answers can be cached
    else:
        assert run.loss.teacher_layers


@every
def test_goes_on_where_it_stopped(preset: str) -> None:
    """Parameters, memories and draws are in the state dict: with it a new learner does what the old one would have."""
    straight, stopped, resumed = (Learner(preset) for _ in range(3))
    for _ in range(3):
        straight.step()
    stopped.step()
    resumed.all.load_state_dict(stopped.all.state_dict())
    resumed.optimizer.load_state_dict(stopped.optimizer.state_dict())
    for _ in range(2):
        resumed.step()
    expected, got = straight.all.state_dict(), resumed.all.state_dict()
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(got[name])), name


@pytest.mark.parametrize("preset", WITH_PARAMETERS)
def test_starts_equal_for_equal_seeds_whatever_the_teacher(preset: str) -> None:
    a, b = Learner(preset), Learner(preset, teacher="resnet20")
    assert all(torch.equal(x, y) for x, y in zip(a.own().values(), b.own().values(), strict=True))


@pytest.mark.parametrize("preset", [p for p in PRESETS if p != "simkd"])
def test_alpha_0_is_ordinary_training(preset: str) -> None:
    if preset == "ce":
        return
    run, plain = Learner(preset, "loss.alpha=0", "loss.ce_weight=1"), Learner("ce")
    assert not run.loss.needs_teacher and run.loss.teacher_layers == run.loss.student_layers == ()
    for _ in range(2):
        terms = run.step(), plain.step()
    assert terms[0] == terms[1]
    assert all(torch.equal(p, q) for p, q in zip(run.student.parameters(), plain.student.parameters(), strict=True))


@every
def test_keys_mean_the_same(preset: str) -> None:
    """`loss = ce_weight·ce + alpha·(its parts)`, whatever the preset."""
    node = OmegaConf.load(CONF_DIR / "loss" / f"{preset}.yaml")
    assert "ce_weight" in node
    if preset == "ce":
        return
    run = Learner(preset, "loss.alpha=0.3", "loss.ce_weight=0.7")
    terms = run.step()
    parts = sum(v for k, v in terms.items() if k not in ("loss", "ce"))
    assert terms["loss"] == pytest.approx(0.7 * terms["ce"] + 0.3 * parts, rel=1e-5)
    takes = set(inspect.signature(getattr(losses, node._target_.rpartition(".")[2])).parameters)
    assert takes - {"methods", "args", "kwargs"} <= set(node), "the preset shows every key that its class takes"


@pytest.mark.parametrize(
    "preset", [p for p in PRESETS if "temperature" in OmegaConf.load(CONF_DIR / "loss" / f"{p}.yaml")]
)
@pytest.mark.parametrize("key", ["temperature", "alpha", "ce_weight"])
def test_wrong_values_name_their_key(preset: str, key: str) -> None:
    for wrong in ("-1", "abc", "null", "{schedule: linear, start: 1}"):
        with pytest.raises(ValueError, match=rf"loss\.{key} (must be|lacks)"):
            Learner(preset, f"loss.{key}={wrong}")


def keys(preset: str) -> list[str]:
    """All that can be typed after `loss.`, those of methods within a combination too."""
    flat = runs.flatten(OmegaConf.load(CONF_DIR / "loss" / f"{preset}.yaml"))
    schedules = {key.rpartition(".")[0] for key in flat if key.endswith(".schedule")}
    return sorted(
        {key for key in flat if key.rpartition(".")[0] not in schedules and "_target_" not in key} | schedules
    )


@pytest.mark.parametrize(("preset", "key"), [(preset, key) for preset in PRESETS for key in keys(preset)])
def test_every_key_tells_what_it_wants(preset: str, key: str) -> None:
    """One line, with the key as it was typed."""
    with pytest.raises(UserError, match=rf"^loss\.{re.escape(key)} must be .+, got \[\]$"):
        Learner(preset, f"loss.{key}=[]")


@pytest.mark.usefixtures("no_pictures")
@every
def test_whole_run_in_bf16(preset: str, tmp_path: Path, teacher_run: Path) -> None:
    """From the configuration to the run directory, which holds the student alone."""
    out = tmp_path / "run"
    brief = ("data.train_size=64", "data.batch_size=32", "trainer.precision=bf16-mixed", "trainer.limit_test_batches=1")
    weights = f"model.teacher_weights={teacher_run}"
    cache = f"model.teacher_cache={tmp_path}" if preset in OF_LOGITS else "model.teacher_cache=off"
    metrics = train(compose(f"loss={preset}", weights, cache, "data.val_size=0", *brief, *SMALL.get(preset, ())), out)
    assert metrics["precision"] == "bf16-mixed"
    deployed = load_file(out / "student.safetensors")
    if preset != "simkd":
        assert deployed.keys() == create_model("resnet8", 10, image_size=8).state_dict().keys()
    checkpoint = torch.load(out / runs.LAST, weights_only=True)["state_dict"]
    assert any(k.startswith("loss.") for k in checkpoint) == (preset in WITH_PARAMETERS)
    assert all(torch.as_tensor(v).isfinite().all() for v in checkpoint.values())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("preset", ["crd", "dml", "ctkd", "vid", "simkd"])
def test_a_resumed_run_equals_one_that_was_not_stopped(preset: str, tmp_path: Path, teacher_run: Path) -> None:
    brief = ("data.train_size=64", "data.batch_size=32", "data.val_size=0", "trainer.limit_test_batches=1")
    words = (
        f"loss={preset}",
        f"model.teacher_weights={teacher_run}",
        *brief,
        "scheduler=constant",
        *SMALL.get(preset, ()),
    )
    train(compose(*words, "trainer.max_epochs=2"), tmp_path / "straight")
    train(compose(*words, "trainer.max_epochs=1"), tmp_path / "stopped")
    train(compose(*words, "trainer.max_epochs=2"), tmp_path / "stopped", resume=True)
    a, b = (
        torch.load(tmp_path / name / runs.LAST, weights_only=True)["state_dict"] for name in ("straight", "stopped")
    )
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(torch.as_tensor(a[name]), torch.as_tensor(b[name])), name


@pytest.mark.parametrize(
    "preset", sorted(set(PRESETS) - set(OF_LOGITS) - NO_TEACHER - {"ctkd", "fsp", "ofd", *COMBINED})
)
@pytest.mark.parametrize("teacher, student", [("vgg8", "mobilenetv2"), ("wrn_16_2", "shufflenetv1")])
def test_defaults_fit_nets_of_other_kinds(preset: str, teacher: str, student: str) -> None:
    """Sensible default layers: stages, widths and sizes of the two nets differ."""
    run = Learner(preset, teacher=teacher, student=student)
    assert math.isfinite(run.loss(*run.outputs(few(4)), few(4))["loss"].item())


def few(n: int) -> Batch:
    batch = digits()
    return batch._replace(x=batch.x[:n], y=batch.y[:n], index=batch.index[:n])


@every
def test_least_batch(preset: str) -> None:
    """One sample is enough, or the method says how many it needs."""
    run = Learner(preset)
    least = max(getattr(m, "least_batch", 1) for m in run.loss.modules())
    assert (least > 1) == (preset in ("sp", "rkd", "pkt", "cc", "dist", "reviewkd"))
    run.student.eval()  # the net's own BatchNorms are not the method's
    assert all(math.isfinite(v) for v in run.step(few(least)).values())
    if least > 1:
        with pytest.raises(ValueError):
            run.step(few(least - 1))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("loss=dist data.batch_size=1", "DIST compares samples with each other and needs 2 or more"),
        ("loss=rkd data.batch_size=2", "needs 3 or more in each batch, got 320 images in batches of 2"),
        ("loss=rkd data.train_size=66", "66 images in batches of 64, of which the last of an epoch has 2"),
        ("loss=reviewkd data.batch_size=1", "ReviewKD"),
    ],
)
def test_too_few_are_told_before_training(words: str, told: str) -> None:
    with pytest.raises(UserError, match=f"data.batch_size: .*{told}"):
        build_parts(compose(*words.split()))
    build_parts(compose(*words.split(), "loss.alpha=0"))


def test_the_module_tree_holds_no_teacher() -> None:
    """Its classifier and BatchNorms are used where they stand: nothing of it is saved, or trained with the student."""
    for preset in ("ofd", "srrl"):
        run = Learner(preset)
        inside = {id(p) for p in run.loss.parameters()}
        assert not inside & {id(p) for p in run.teacher_model.parameters()}
        assert not any(isinstance(m, nn.Linear) for m in run.loss.modules())
