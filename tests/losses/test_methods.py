"""What every preset of `conf/loss` must do: learn, train its parameters, go on where it stopped, deploy the student."""

import copy
import inspect
import json
import math
import re
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from kd_lightning import losses
from kd_lightning.models import create_model
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import UserError
from tests.losses.learner import NO_TEACHER, PRESETS, Learner, digits, few, flat, preset_node

every = pytest.mark.parametrize("preset", PRESETS)
WITH_PARAMETERS = ["ab", "cc", "crd", "crd_kd", "ctkd", "dml", "fitnets", "ft", "ofd", "reviewkd", "srrl", "vid"]
COMBINED = ["crd_kd", "kd_attention"]
OF_LOGITS = [
    "kd",
    "kd_only",
    "kd_cifar",
    "kd_std",
    "kd_adaptive",
    "dkd",
    "dkd_std",
    "dist",
    "nkd",
    "wsld",
    "rld",
    "mlld",
    "deit",
]


@every
def test_learns(preset: str) -> None:
    """The loss falls; the method's parameters all get gradients and change; the teacher does not."""
    run = Learner(preset)
    assert_says_what_it_needs(preset, run)
    before, teacher = run.own(), copy.deepcopy(run.teacher_model.state_dict())
    steps = 24 if "crd" in preset else 12  # CRD's memory is random at first
    terms = [run.step() for _ in range(steps)]
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
    expected, got = straight.state(), resumed.state()
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
    assert "ce_weight" in preset_node(preset)
    if preset == "ce":
        return
    run = Learner(preset, "loss.alpha=0.3", "loss.ce_weight=0.7")
    terms = run.step()
    parts = sum(v for k, v in terms.items() if k not in ("loss", "ce"))
    assert terms["loss"] == pytest.approx(0.7 * terms["ce"] + 0.3 * parts, rel=1e-5)


FIRST = {"Hard": "deit", "TeacherFree": "teacher_free"} | {
    name: name.lower()
    for name, found in vars(losses).items()
    if inspect.isclass(found) and issubclass(found, losses.Method) and name.lower() in PRESETS
}


@pytest.mark.parametrize("name", FIRST)
def test_a_class_means_in_python_what_its_preset_means(name: str) -> None:
    """`KD(alpha=0.9)` is `loss=kd loss.alpha=0.9`: the same keys with the same defaults."""
    signature = inspect.signature(getattr(losses, name)).parameters
    defaults = {key: list(p.default) if isinstance(p.default, tuple) else p.default for key, p in signature.items()}
    node = OmegaConf.to_container(preset_node(FIRST[name]))
    assert node.pop("_target_") == f"kd_lightning.losses.{name}"
    node.pop("fusion", None)  # of several teachers, and not the method's
    assert defaults == node


def test_every_method_has_a_preset() -> None:
    methods = {n for n, c in vars(losses).items() if inspect.isclass(c) and issubclass(c, losses.Method)}
    assert methods - {"Method", "Combination"} == set(FIRST)


@every
def test_a_preset_shows_every_key(preset: str) -> None:
    node = preset_node(preset)
    takes = set(inspect.signature(getattr(losses, node._target_.rpartition(".")[2])).parameters)
    assert takes - {"methods"} <= set(node)


@pytest.mark.parametrize("preset", [p for p in PRESETS if "temperature" in preset_node(p)])
@pytest.mark.parametrize("key", ["temperature", "alpha", "ce_weight"])
def test_wrong_values_name_their_key(preset: str, key: str) -> None:
    for wrong in ("-1", "abc", "null", "{schedule: linear, start: 1}"):
        with pytest.raises(ValueError, match=rf"loss\.{key} (must be|lacks)"):
            Learner(preset, f"loss.{key}={wrong}")


def keys(preset: str) -> list[str]:
    """All that can be typed after `loss.`, those of methods within a combination too."""
    found = flat(OmegaConf.to_container(preset_node(preset)))
    schedules = {key.rpartition(".")[0] for key in found if key.endswith(".schedule")}
    return sorted(
        {key for key in found if key.rpartition(".")[0] not in schedules and "_target_" not in key} | schedules
    )


@pytest.mark.parametrize(("preset", "key"), [(preset, key) for preset in PRESETS for key in keys(preset)])
def test_every_key_tells_what_it_wants(preset: str, key: str) -> None:
    """One line, with the key as it was typed."""
    with pytest.raises(UserError, match=rf"^loss\.{re.escape(key)} must be .+, got \[\]$"):
        Learner(preset, f"loss.{key}=[]")


@pytest.mark.parametrize(
    "preset", sorted(set(PRESETS) - set(OF_LOGITS) - NO_TEACHER - {"ctkd", "fsp", "ofd", *COMBINED})
)
@pytest.mark.parametrize("teacher, student", [("vgg8", "mobilenetv2"), ("wrn_16_2", "shufflenetv1")])
def test_defaults_fit_nets_of_other_kinds(preset: str, teacher: str, student: str) -> None:
    """Sensible default layers: stages, widths and sizes of the two nets differ."""
    run = Learner(preset, teacher=teacher, student=student)
    assert math.isfinite(run.loss(*run.outputs(few(4)), few(4))["loss"].item())


@every
def test_least_batch(preset: str) -> None:
    """One sample is enough, or the method says how many it needs."""
    run = Learner(preset)
    least = run.loss.least_batch
    assert (least > 1) == (preset in ("sp", "rkd", "pkt", "cc", "dist", "reviewkd"))
    run.student.eval()  # the net's own BatchNorms are not the method's
    assert all(math.isfinite(v) for v in run.step(few(least)).values())
    if least > 1:
        with pytest.raises(ValueError):
            run.step(few(least - 1))


def test_the_module_tree_holds_no_teacher() -> None:
    """Its classifier and BatchNorms are used where they stand: nothing of it is saved, or trained with the student."""
    for preset in ("ofd", "srrl"):
        run = Learner(preset)
        inside = {id(p) for p in run.loss.parameters()}
        assert not inside & {id(p) for p in run.teacher_model.parameters()}
        assert not any(isinstance(m, nn.Linear) for m in run.loss.modules())


def test_simkd_deploys_the_teachers_classifier_and_its_card_rebuilds_it() -> None:
    run = Learner("simkd")
    run.step()
    card = run.loss.wrap_card(run.card)
    card = StudentCard.from_dict(json.loads(json.dumps(card.as_dict())))
    rebuilt: Any = create_model(card.name, kwargs=card.kwargs, **card.inputs)
    rebuilt.load_state_dict(run.student.state_dict())
    x = digits().x
    assert torch.equal(rebuilt.eval()(x), run.student.eval()(x))
    assert torch.equal(rebuilt.head.weight, run.teacher_model.fc.weight)


def test_methods_that_keep_the_student_keep_its_card() -> None:
    run = Learner("kd")
    assert run.loss.wrap_card(run.card) is run.card
    assert run.loss.wrap_student(run.student) is run.student
    assert Learner("simkd", "loss.alpha=0", "loss.ce_weight=1").student.__class__ is run.student.__class__


def test_what_crd_remembers_is_no_buffer() -> None:
    """DDP would send it in every step. It moves with the module, and is saved."""
    run = Learner("crd")
    method = run.loss.method
    assert not any("embeddings" not in name for name, _ in method.named_buffers())
    assert {v.dtype for v in run.all.double().loss.method.state.values()} == {torch.float64, torch.int64}
    assert method.get_extra_state().keys() == {"steps", "memory_s", "memory_t", "labels", "log_z"}


def test_a_combination_says_what_is_wrong_with_it() -> None:
    with pytest.raises(UserError, match="must name at least one method"):
        losses.Combination()
    with pytest.raises(UserError, match=r"loss\.kd must be a distillation method with a _target_, got 3"):
        losses.Combination(kd=3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"loss\.b: SimKD changes the student and cannot be combined"):
        losses.Distillation(losses.Combination(b=losses.SimKD())).prepare(None)  # type: ignore[arg-type]
    rkd = losses.Combination(rkd=losses.RKD(), kd=losses.KD())
    assert losses.Distillation(rkd).least_batch == 3 and losses.Distillation(rkd).needs_teacher


def test_both_weights_0_leave_nothing_to_learn() -> None:
    for method in (losses.KD(alpha=0, ce_weight=0), losses.CE(ce_weight=0)):
        with pytest.raises(UserError, match="both 0, so there is nothing to learn"):
            losses.Distillation(method)
