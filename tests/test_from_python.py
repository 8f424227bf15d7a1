"""Distillation without a configuration: networks, loaders and a Trainer of the user's own."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import kd_lightning
from kd_lightning import CE, CRD, DML, KD, SP, Distiller, FitNets, losses
from kd_lightning.teachers.plain import plain_teacher
from kd_lightning.training.build import build_experiment
from kd_lightning.utils.checks import UserError
from tests.conftest import compose, environment

pytestmark = pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
EXAMPLES = Path(__file__).parents[1] / "examples"
X = torch.randn(96, 12, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def make_net(seed: int = 0, width: int = 16) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 3))


def fit(distiller: Distiller, train: Any, val: Any = None, epochs: int = 2) -> lightning.Trainer:
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(distiller, train, val)
    return trainer


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("name", ["own_code.py", pytest.param("own_loss.py", marks=pytest.mark.slow)])
def test_examples(name: str, tmp_path: Path) -> None:
    code = (EXAMPLES / name).read_text()
    if name == "own_code.py":
        lines = [line for line in code.partition('"""\n')[2].splitlines() if line.strip()]
        assert len(lines) <= 25
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=tmp_path, env=environment(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    accuracies = [float(a) for a in re.findall(r"test/accuracy\D+(0\.\d+)", done.stdout.decode())]
    assert len(accuracies) == 2 and min(accuracies) > 0.8, done.stdout.decode()
    assert not os.listdir(tmp_path)


def test_all_losses_are_offered_by_name_and_importing_the_package_imports_no_torch() -> None:
    methods = {k for k, v in vars(losses).items() if isinstance(v, type) and issubclass(v, losses.Method)}
    assert set(dir(kd_lightning)) == methods | {"Distiller", "load"}
    assert all(getattr(kd_lightning, name) is getattr(losses, name) for name in methods)
    with pytest.raises(AttributeError, match="has no attribute 'KDD'"):
        kd_lightning.KDD  # noqa: B018


class Dictionaries(Dataset[dict[str, Any]]):
    """Samples as a dictionary; `names` are the keys of the inputs' halves, or of the input."""

    def __init__(self, *names: str, label: str = "labels"):
        self.names, self.label = names, label

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> dict[str, Any]:
        parts = X[i].chunk(len(self.names))
        return dict(zip(self.names, parts, strict=True)) | {self.label: Y[i]}


class Halves(nn.Module):
    """Takes its inputs by keyword and answers with a mapping, as models of Hugging Face do."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Mapping[str, Tensor]:
        return {"logits": self.net(torch.cat([input_ids, attention_mask], 1)), "loss": torch.zeros(())}


def test_pairs_dictionaries_and_keyword_arguments_train_the_same() -> None:
    teacher, found = make_net(1, 64), []
    kinds = {
        "pairs": (TensorDataset(X, Y), lambda net: net),
        "dictionaries": (Dictionaries("pixel_values", label="label"), lambda net: net),
        "keyword arguments": (Dictionaries("input_ids", "attention_mask"), Halves),
    }
    for dataset, wrap in kinds.values():
        net = make_net()
        before = weights(net)
        distiller = Distiller(wrap(net), wrap(teacher), KD(temperature=4, alpha=0.9), num_classes=3)
        loader: Any = DataLoader(dataset, batch_size=32)
        trainer = fit(distiller, loader, loader)
        assert {"train/kd", "val/accuracy", "val/agreement", "val/teacher_accuracy"} <= trainer.callback_metrics.keys()
        found.append(weights(net))
        assert not any(torch.equal(a, b) for a, b in zip(before, found[-1], strict=True))
    assert all(torch.equal(a, b) for own in found[1:] for a, b in zip(found[0], own, strict=True))


def test_a_teacher_is_never_trained_and_its_layers_may_be_read() -> None:
    teacher, student = make_net(1, 64), make_net()
    before = weights(teacher)
    method = SP(student_layers="1", teacher_layers="1", alpha=100)
    distiller = Distiller(student, teacher, method, num_classes=3, example=X[:2])
    trainer = fit(distiller, DataLoader(TensorDataset(X, Y), batch_size=32))
    assert float(trainer.callback_metrics["train/sp"]) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, weights(teacher), strict=True))
    assert not any(p.requires_grad for p in teacher.parameters()) and not teacher.training


def test_from_python_it_is_what_the_yaml_says() -> None:
    """One step of training through both ways, bit for bit."""
    trained = []
    for own in (False, True):
        run = build_experiment(compose("loss.temperature=4", "loss.alpha=0.9"))
        torch.manual_seed(1)
        (opened,) = run.teachers
        for p in opened.model.parameters():
            nn.init.normal_(p, std=0.1)
        loss = KD(temperature=4, alpha=0.9) if own else run.loss
        settings = {"optimizer": run.optimizer, "schedule": run.schedule}
        distiller = Distiller(run.student, opened.model, loss, num_classes=10, **settings)
        trainer = lightning.Trainer(
            max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            limit_val_batches=0, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(distiller, run.data)
        trained.append(weights(run.student))
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


def test_a_validation_that_is_shuffled_is_never_answered_from_memory() -> None:
    teacher = make_net(1, 64)
    with torch.no_grad():
        right = float((teacher(X).argmax(1) == Y).float().mean())
    told: list[float] = []

    class Watch(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            told.append(float(trainer.callback_metrics["val/teacher_accuracy"]))

    loader = DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[Watch()], num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Distiller(make_net(), teacher, KD(), num_classes=3), loader, loader)
    assert told == pytest.approx([right] * 3)


@pytest.mark.parametrize(
    ("end", "last"),
    [({"max_epochs": 4}, 0.0), ({"max_steps": 12}, 0.0), ({"max_epochs": -1, "max_time": {"seconds": 2}}, 1.0)],
)
def test_the_learning_rate_falls_to_0_where_the_training_ends(end: dict[str, Any], last: float) -> None:
    rates: list[float] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[Watch()],
        **end,
    )
    distiller = Distiller(make_net(), None, CE(), num_classes=3)
    trainer.fit(distiller, DataLoader(TensorDataset(X, Y), batch_size=32))
    assert rates[-1] == pytest.approx(1e-3 * last, abs=1e-5) and rates[1] == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: Distiller(make_net(), None, KD(), num_classes=3),
            "KD needs a teacher, got None; plain training is CE",
        ),
        (
            lambda: Distiller(make_net(), make_net(1), SP(), num_classes=3),
            r"SP reads layers of the networks: give Distiller example=x",
        ),
        (lambda: Distiller(make_net(), None, DML(), num_classes=3, example=X[:2]), "DML trains a second student"),
        (
            lambda: Distiller(make_net(), make_net(1), CRD(), num_classes=3, example=X[:2]),
            "CRD remembers each training sample by its number, which these batches lack",
        ),
        (lambda: KD(temperature=-1), r"loss\.temperature must be a number > 0, got -1"),
        (
            lambda: Distiller(make_net(), make_net(1), "kd", num_classes=3),
            "loss must be a Method or a Distillation, got",
        ),
    ],
)
def test_misuse_is_told_in_one_line(make: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [{"x": X[:4]}, (X[:4],), X[:4]], ids=["no labels", "no pair", "a tensor"])
def test_batches_of_another_kind_are_told_in_one_line(batch: Any) -> None:
    class One(Dataset[Any]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, i: int) -> Any:
            return batch

    with pytest.raises(UserError, match=r"a batch (needs labels|must be)"):
        fit(Distiller(make_net(), None, CE(), num_classes=3), DataLoader(One(), batch_size=None))


def test_samples_without_a_label_are_learned_from_the_teacher() -> None:
    """docs/data.md: −1 means no label."""
    y = Y.clone()
    y[::2] = -1
    student = make_net(1, 4)
    before = weights(student)
    fit(Distiller(student, make_net(2), KD(), num_classes=3), DataLoader(TensorDataset(X, y), 32))
    assert all(p.isfinite().all() for p in student.parameters()) and any(
        not torch.equal(p, q) for p, q in zip(weights(student), before, strict=True)
    )


def test_a_method_that_reads_layers_wants_the_network_itself() -> None:
    with pytest.raises(UserError, match="FitNets reads layers of the teacher: give the network itself"):
        Distiller(make_net(), plain_teacher(make_net()), FitNets(), num_classes=3, example=X[:2])
