"""The parts of a training with several tasks, each against the ordinary part that it is made of."""

import copy
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kd_lightning import CE, KD, PKT, SRRL, Combination, Distiller, FitNets, SimKD
from kd_lightning.losses import Distillation, Tasks
from kd_lightning.metrics import Scores, TaskScores
from kd_lightning.models import Heads, create_model, head, stages
from kd_lightning.types import UNLABELED, Batch, Outputs
from kd_lightning.utils.checks import UserError

SIZES = {"a": 3, "b": 2}
G = torch.Generator().manual_seed(0)
X = torch.randn(48, 8, generator=G)
Y = {task: torch.randint(count, (48,), generator=G) for task, count in SIZES.items()}
Y["b"][::5] = UNLABELED
LOADER = [(X[i : i + 12], {task: y[i : i + 12] for task, y in Y.items()}) for i in range(0, 48, 12)]


def net(classes: int, width: int = 8) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, classes))


def fit(distiller: Distiller, batches: Any) -> dict[str, Tensor]:
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(distiller, loader, loader)
    return dict(trainer.callback_metrics)


def test_heads_side_by_side_are_one_linear_layer() -> None:
    network = net(5)
    heads = Heads(network, SIZES)(X)
    last = network[2]
    features = network[:2](X)
    assert list(heads) == ["a", "b"]
    torch.testing.assert_close(heads["a"], features @ last.weight[:3].T + last.bias[:3])
    torch.testing.assert_close(heads["b"], features @ last.weight[3:].T + last.bias[3:])
    assert Heads(Heads(network, SIZES), SIZES)(X)["b"].equal(heads["b"])  # a network with heads of its own stays


def test_a_built_in_network_has_heads_and_names_its_layers() -> None:
    model = create_model("resnet8", 5, image_size=8, tasks=SIZES)
    assert isinstance(model, Heads) and head(model) == "network.fc" and stages(model)[-1] == "network.layer3"
    assert {task: list(z.shape) for task, z in model(torch.zeros(2, 3, 8, 8)).items()} == {"a": [2, 3], "b": [2, 2]}


def test_the_loss_is_the_weighted_sum_of_ordinary_losses() -> None:
    z, t = (Outputs({task: torch.randn(6, count, generator=G) for task, count in SIZES.items()}) for _ in range(2))
    y = {task: labels[:6].clone() for task, labels in Y.items()}
    y["b"][2:] = UNLABELED
    batch = Batch(X[:6], y, torch.arange(6))
    methods = {"a": KD(temperature=4, alpha=0.9, ce_weight=0.1), "b": Combination(kd=KD(alpha=0.3), ce_weight=0.5)}
    loss = Tasks(methods, weights={"b": 0.25})
    loss.of("b").some_unlabeled = True
    terms = loss(z, t, batch)
    each = {task: loss.of(task)(z.of(task), t.of(task), batch.of(task)) for task in SIZES}
    assert terms["loss"] == each["a"]["loss"] + 0.25 * each["b"]["loss"]
    assert terms["b/ce"] == each["b"]["ce"] and terms["a/kd"] == each["a"]["kd"]
    few = nn.functional.cross_entropy(z.logits["b"][:2], y["b"][:2], ignore_index=UNLABELED)
    torch.testing.assert_close(terms["b/ce"], few)  # the others have no label in this task


def test_scores_are_those_of_each_task_and_their_mean() -> None:
    z, t = ({task: torch.randn(48, count, generator=G) for task, count in SIZES.items()} for _ in range(2))
    together = TaskScores(SIZES)
    together.update(z, {"b": t["b"]}, Y)  # the first task has no teacher
    found = together.compute()
    for task, count in SIZES.items():
        alone = Scores(count)
        alone.update(z[task], t[task] if task == "b" else None, Y[task])
        for name, value in alone.compute().items():
            assert found[f"{task}/{name}"] == value
    assert found["accuracy"] == (found["a/accuracy"] + found["b/accuracy"]) / 2
    assert found["teacher_accuracy"] == found["b/teacher_accuracy"] and "a/teacher_accuracy" not in found


def test_one_task_by_name_trains_as_an_ordinary_student() -> None:
    plain, teacher = net(3), net(3, 32)
    by_task = Heads(copy.deepcopy(plain), {"a": 3})
    torch.manual_seed(1)
    fit(Distiller(plain, copy.deepcopy(teacher), KD(), num_classes=3), [(x, y["a"]) for x, y in LOADER])
    torch.manual_seed(1)
    fit(Distiller(by_task, {"a": teacher}, {"a": KD()}, num_classes={"a": 3}), [(x, {"a": y["a"]}) for x, y in LOADER])
    for one, other in zip(plain.parameters(), by_task.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)  # the mean of the labels is summed otherwise


@pytest.mark.parametrize(
    ("teacher", "loss"),
    [
        ({"a": net(3, 32), "b": net(2, 32)}, KD()),
        ({"a": net(3, 32)}, {"a": PKT(), "b": CE()}),
        (Heads(net(5, 32), SIZES), Tasks({"a": KD(), "b": KD()}, weights={"b": 2})),
        (None, CE()),
    ],
    ids=["a teacher each", "one teacher, layers", "one teacher of both", "labels"],
)
def test_from_python(teacher: Any, loss: Any) -> None:
    student = Heads(net(5), SIZES)
    before = [p.detach().clone() for p in student.parameters()]
    seen = fit(Distiller(student, teacher, loss, num_classes=SIZES, example=X[:2]), LOADER)
    assert all(not p.equal(q) for p, q in zip(student.parameters(), before, strict=True))
    assert {"val/a/accuracy", "val/b/nll", "val/accuracy", "train/b/ce"} <= set(seen)
    assert ("val/a/teacher_accuracy" in seen) == (teacher is not None)
    assert ("val/b/agreement" in seen) == (teacher is not None and not isinstance(loss, dict))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: distiller({"a": None, "c": net(2)}), "teacher names the task 'c', but the tasks are a, b"),
        (lambda: distiller({"a": net(3)}), "task b: KD needs a teacher"),
        (lambda: distiller(loss={"a": CE()}), "loss has no method for the task 'b'"),
        (lambda: distiller(loss={"a": CE(), "b": CE(), "bb": CE()}), "loss names the task 'bb'.* did you mean 'b'"),
        (lambda: distiller(loss={"a": CE(), "b": 3}), "loss.methods.b must be a method"),
        (lambda: distiller(loss=SimKD(), teacher={"a": net(3), "b": net(2)}), "several tasks share"),
        (lambda: Tasks({"a": CE()}, weights={"b": 1}), "loss.weights names the task 'b'"),
        (lambda: Tasks({"a": CE()}, weights={"a": -1}), "loss.weights.a must be a number >= 0"),
        (lambda: Tasks({"a": CE()}, weights={"a": 0}), "loss.weights are all 0"),
        (lambda: Tasks({}), "loss.methods must have a method for each task"),
        (lambda: step(Heads(net(4), {"a": 3, "c": 1})), "the student has no head for the task 'b', only for a, c"),
        (lambda: step(net(5)), "the student gives one tensor, wanted one tensor for each task"),
        (lambda: step(Heads(net(6), {"a": 3, "b": 3})), r"logits \[12, 3\] of the task 'b' for 12 samples"),
        (lambda: step(Heads(net(5), SIZES), {"a": Y["a"][:12]}), "a batch has no labels for the task 'b'"),
        (lambda: step(Heads(net(5), SIZES), Y["a"][:12]), "the labels of a batch are one tensor, wanted"),
    ],
)
def test_a_mistake_is_one_line(build: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        build()
    assert "\n" not in str(caught.value)


def distiller(teacher: Any = None, loss: Any = None) -> Distiller:
    return Distiller(Heads(net(5), SIZES), teacher, KD() if loss is None else loss, num_classes=SIZES, example=X[:2])


def step(student: nn.Module, y: Any = None) -> Any:
    own = Distiller(student, None, CE(), num_classes=SIZES)
    return own.training_step((X[:12], LOADER[0][1] if y is None else y), 1)


def test_labels_by_task_are_refused_where_there_is_one_task() -> None:
    with pytest.raises(UserError, match=r"by task \(a, b\), wanted one tensor"):
        Distiller(net(3), None, CE(), num_classes=3).training_step(LOADER[0], 1)
    with pytest.raises(UserError, match=r"the student gives logits by task \(a, b\), wanted one tensor"):
        Distiller(Heads(net(5), SIZES), None, CE(), num_classes=5).training_step((X[:12], Y["a"][:12]), 1)


def test_methods_that_read_layers_compare_the_trunk_with_the_teacher_of_their_task() -> None:
    images = torch.randn(8, 3, 8, 8, generator=G)
    batches = [(images, {task: y[:8] for task, y in Y.items()})] * 2
    student = create_model("resnet8", 5, image_size=8, tasks=SIZES)
    teachers = {task: create_model("resnet8", count, image_size=8) for task, count in SIZES.items()}
    seen = fit(Distiller(student, teachers, {"a": SRRL(), "b": FitNets()}, num_classes=SIZES, example=images), batches)
    assert float(seen["train/a/loss"]) > 0 and float(seen["train/b/fitnets"]) > 0


def test_a_prepared_loss_is_kept_as_it_is() -> None:
    loss = Distillation(KD())
    assert Tasks({"a": loss}).of("a") is loss
