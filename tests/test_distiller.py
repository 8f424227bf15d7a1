"""The promises of the method: what a run learns, what it logs, and what it never touches."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from kd_lightning import runs
from kd_lightning.data import DigitsDataModule
from kd_lightning.distiller import Distiller
from kd_lightning.losses import CE, KD
from kd_lightning.models import create_model
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.runs.students import load_student
from kd_lightning.schedules import constant
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.training import run as train_module
from kd_lightning.training.build import build_experiment
from kd_lightning.training.run import train
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import trusting
from tests.conftest import compose

pytestmark = pytest.mark.usefixtures("no_pictures")
OF_THE_MACHINE = ("seconds", "images_per_second", "time_shares", "parts", "git_revision")


@pytest.fixture(scope="module")
def kd_run(teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distillation of two epochs."""
    out = tmp_path_factory.mktemp("kd") / "run"
    train(compose(f"model.teacher_weights={teacher_run}", "trainer.max_epochs=2"), out)
    return out


def student(run: Path) -> dict[str, Tensor]:
    return load_file(run / "student.safetensors")


def last(run: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(run / runs.LAST, weights_only=True)["state_dict"]
    return {k: v for k, v in state.items() if k.startswith("student.")}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def scores(run: Path) -> dict[str, Any]:
    """The metrics of a run, but for those that a clock or another engineer's commit changes."""
    return {k: v for k, v in runs.read(run).metrics.items() if k not in OF_THE_MACHINE}


# alpha = 0 is ordinary training


def test_alpha_0_is_plain_training_and_makes_no_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_teacher(*_: Any) -> None:
        raise AssertionError("a teacher was built")

    monkeypatch.setattr(train_module, "build_task_teachers", no_teacher)
    train(compose("loss=ce", "trainer.max_epochs=2"), tmp_path / "ce")
    train(compose("loss=kd", "loss.alpha=0", "trainer.max_epochs=2"), tmp_path / "kd")
    assert equal(last(tmp_path / "ce"), last(tmp_path / "kd"))
    assert equal(student(tmp_path / "ce"), student(tmp_path / "kd"))
    assert scores(tmp_path / "ce") == scores(tmp_path / "kd")
    assert "teacher" not in scores(tmp_path / "kd")


def test_ce_sees_the_same_batches_and_starts_with_the_same_weights_as_kd(teacher_run: Path, tmp_path: Path) -> None:
    """With a vanishing alpha the weights after training are almost those of plain training."""
    train(compose("loss=ce"), tmp_path / "ce")
    train(compose("loss.alpha=1e-9", f"model.teacher_weights={teacher_run}"), tmp_path / "kd")
    ce, kd = last(tmp_path / "ce"), last(tmp_path / "kd")
    assert all(torch.allclose(ce[k].float(), kd[k].float(), rtol=1e-3, atol=1e-4) for k in ce)


# The teacher


@pytest.fixture
def teacher() -> LiveTeacher:
    torch.manual_seed(1)
    return LiveTeacher(create_model("resnet8", 10, image_size=8))


@pytest.fixture
def make(teacher: LiveTeacher) -> Callable[..., Distiller]:
    def make(loss: Any = None, with_teacher: bool = True) -> Distiller:
        torch.manual_seed(2)
        net = create_model("resnet8", 10, image_size=8)
        optimizer = lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9)  # noqa: E731
        return Distiller(
            net,
            teacher if with_teacher else None,
            loss or kd(),
            num_classes=10,
            optimizer=optimizer,
            schedule=constant,
        )

    return make


def kd() -> Any:
    return build_experiment(compose()).loss


@pytest.fixture
def data() -> DigitsDataModule:
    return DigitsDataModule(train_size=320, batch_size=64)


def fit(distiller: Distiller, data: DigitsDataModule, **settings: Any) -> pl.Trainer:
    settings = {"max_epochs": 1, "enable_checkpointing": False} | settings
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, inference_mode=False, use_distributed_sampler=False, **settings,
    )  # fmt: skip
    trainer.fit(distiller, data)
    return trainer


def test_teacher_is_never_changed_trained_or_saved(
    make: Callable[..., Distiller], teacher: LiveTeacher, data: DigitsDataModule, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}  # with BatchNorm's statistics
    distiller = make()
    trainer = fit(distiller, data)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert equal(teacher.model.state_dict(), before)
    assert not teacher.model.training and all(p.grad is None for p in teacher.model.parameters())

    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)
    own = {id(p) for p in teacher.model.parameters()}
    trained = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert len(trained) == len(list(distiller.student.parameters())) and not own & {id(p) for p in trained}
    assert not own & {id(p) for p in distiller.parameters()}
    assert not any("teacher" in k for k in saved["state_dict"] if not k.startswith("scores."))
    assert sum(v.numel() for v in saved["state_dict"].values()) < 1.05 * sum(v.numel() for v in before.values())


def test_student_is_trained_and_teacher_follows_its_dtype(
    make: Callable[..., Distiller], teacher: LiveTeacher, data: DigitsDataModule
) -> None:
    distiller = make()
    before = {k: v.clone() for k, v in distiller.student.state_dict().items()}
    fit(distiller, data)
    assert not any(torch.equal(v, before[k]) for k, v in distiller.student.named_parameters())
    distiller.double()
    assert {p.dtype for p in teacher.model.parameters()} == {torch.float64}
    distiller.to("meta")
    assert {p.device.type for p in teacher.model.parameters()} == {"meta"}


def test_both_see_the_same_view(make: Callable[..., Distiller], teacher: LiveTeacher, data: DigitsDataModule) -> None:
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    distiller = make()
    for name, model in (("student", distiller.student), ("teacher", teacher.model)):
        model.register_forward_hook(lambda m, args, out, name=name: seen[name].append(args[0].clone()))
    fit(distiller, data, limit_val_batches=0)
    assert len(seen["student"]) == len(seen["teacher"]) == 5
    assert all(torch.equal(a, b) for a, b in zip(seen["student"], seen["teacher"], strict=True))


def test_loss_by_hand(make: Callable[..., Distiller], teacher: LiveTeacher, data: DigitsDataModule) -> None:
    """CE + alpha·T²·KL, accuracy and agreement of one batch; the defaults are T = 2 and alpha = 0.5."""
    data.setup()
    batch: Batch = next(iter(data.train_dataloader()))
    distiller: Any = make().train()
    distiller.log_terms = False
    distiller._trainer = SimpleNamespace(current_epoch=0, num_training_batches=5, overfit_batches=0)
    terms = distiller.training_step(batch, 0)
    student = distiller.student(batch.x)
    target = teacher.model(batch.x)
    kl = (F.softmax(target / 2, 1) * (F.log_softmax(target / 2, 1) - F.log_softmax(student / 2, 1))).sum(1).mean()
    ce = F.nll_loss(F.log_softmax(student, 1), batch.y)
    torch.testing.assert_close(terms["ce"], ce)
    torch.testing.assert_close(terms["kd"], 4 * kl)
    torch.testing.assert_close(terms["loss"], ce + 0.5 * 4 * kl)
    assert float(terms["accuracy"]) == pytest.approx(float((student.argmax(1) == batch.y).float().mean()))
    assert float(terms["agreement"]) == pytest.approx(float((student.argmax(1) == target.argmax(1)).float().mean()))


def test_metrics_are_exact_whatever_the_batches(make: Callable[..., Distiller], teacher: LiveTeacher) -> None:
    found = []
    for size in (360, 7, 128):
        data = DigitsDataModule(train_size=320, batch_size=64, eval_batch_size=size)
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        found.append(trainer.test(make(), data, verbose=False)[0])
    assert found[1] == pytest.approx(found[0], rel=1e-4) and found[2] == pytest.approx(found[0], rel=1e-4)
    data.setup()
    everything = next(iter(data.loader("test").source.batches(torch.arange(360), 360, 0, 0, torch.device("cpu"))))
    with torch.no_grad():
        ours, theirs = make().student.eval()(everything.x), teacher.model(everything.x)
    assert found[0]["test/accuracy"] == pytest.approx(float((ours.argmax(1) == everything.y).float().mean()))
    assert found[0]["test/agreement"] == pytest.approx(float((ours.argmax(1) == theirs.argmax(1)).float().mean()))
    kl = F.kl_div(ours.log_softmax(1), theirs.log_softmax(1), log_target=True, reduction="batchmean")
    assert found[0]["test/kl"] == pytest.approx(float(kl), rel=1e-4)
    assert found[0]["test/nll"] == pytest.approx(float(F.cross_entropy(ours, everything.y)), rel=1e-4)


def test_without_a_teacher_there_is_nothing_of_it(make: Callable[..., Distiller], data: DigitsDataModule) -> None:
    trainer = fit(make(CE(), with_teacher=False), data)
    assert "val/accuracy" in trainer.callback_metrics
    assert not any(word in name for name in trainer.callback_metrics for word in ("teacher", "agreement", "kl"))


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.1},
        {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"},
    ],
    ids=str,
)
def test_trainer_settings(settings: dict[str, Any], make: Callable[..., Distiller], data: DigitsDataModule) -> None:
    distiller = make()
    trainer = fit(distiller, data, **settings)
    assert trainer.global_step == (3 if "accumulate_grad_batches" in settings else 5)
    assert all(p.isfinite().all() for p in distiller.parameters())
    wanted = torch.float64 if settings.get("precision") == "64-true" else torch.float32
    assert {p.dtype for p in distiller.student.parameters()} == {wanted}


def test_a_student_that_diverges_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss became nan or infinite in epoch 0"):
        train(compose("loss=ce", "optimizer.lr=1e20"), tmp_path / "run")


class Words(nn.Module):
    """Logits for each of five words of a sample: not yet for the sample."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 5 * num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)).unflatten(1, (5, -1))


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_logits_of_three_dimensions_are_refused_and_not_taken_for_several_teachers(
    who: str, data: DigitsDataModule, tmp_path: Path
) -> None:
    with (
        pytest.raises(UserError, match=rf"model\.{who}: the network gives \[2, 5, 10\] .* wants \[2, 10\]"),
        trusting(),
    ):
        train(compose(f"model.{who}={__name__}.Words", f"teacher_stage.dir={tmp_path}"), tmp_path / "run")
    nets = {"student": create_model("resnet8", 10, image_size=8), "teacher": Words()}
    if who == "student":
        nets = {"student": Words(), "teacher": create_model("resnet8", 10, image_size=8)}
    distiller = Distiller(nets["student"], nets["teacher"], KD(), num_classes=10)
    with pytest.raises(UserError, match=rf"the {who} gives logits \[64, 5, 10\] for 64 samples, wanted \[64, 10\]"):
        fit(distiller, data)


# What is written


def test_every_term_is_logged(kd_run: Path) -> None:
    events = EventAccumulator(str(kd_run)).Reload()
    tags = set(events.Tags()["scalars"])
    terms = {"loss", "ce", "kd", "accuracy", "agreement", "lr", "images_per_second"}
    assert {f"train/{term}" for term in terms} <= tags
    measured = {"accuracy", "top5", "nll", "ece", "agreement", "kl", "teacher_accuracy"}
    assert {f"val/{name}" for name in measured} | {f"z_test/{name}" for name in measured - {"teacher_accuracy"}} <= tags
    assert {"z_test/confusion", "z_test/samples"} <= set(events.Tags()["images"])
    losses = {term: [e.value for e in events.Scalars(f"train/{term}")] for term in ("loss", "ce", "kd")}
    for loss, ce, kd in zip(*losses.values(), strict=True):
        assert loss == pytest.approx(ce + 0.5 * kd, rel=1e-4)
    assert [e.step for e in events.Scalars("train/loss")] == [5, 10]


def test_run_directory(kd_run: Path) -> None:
    files = {p.name for p in kd_run.iterdir()}
    wanted = {runs.CONFIG, runs.METRICS, runs.BEST, runs.LAST, "student.safetensors"}
    assert wanted <= files and not any(name.startswith(".") for name in files)
    metrics = runs.read(kd_run).metrics
    for who in (metrics["teacher"], metrics["student"]["best"], metrics["student"]["last"]):
        for split in ("val", "test"):
            assert 0 <= who[split]["accuracy"] <= 1 and who[split]["nll"] > 0
    assert metrics["student"]["last"]["epoch"] == metrics["epochs"] == 2
    assert metrics["student"]["parameters"] == 75_290 and metrics["seed"] == 0
    assert {"device", "versions", "git_revision", "seconds", "images_per_second", "precision"} <= metrics.keys()


def test_checkpoints_hold_the_student_alone_and_rebuild_it(kd_run: Path) -> None:
    model, card = load_student(kd_run)
    state = torch.load(kd_run / runs.LAST, weights_only=True)["state_dict"]
    students = {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
    assert equal(model.state_dict(), students)
    assert not any("teacher" in k for k in state if not k.startswith("scores."))
    assert card.name == "resnet8" and card.classes == list("0123456789") and card.inputs["image_size"] == 8
    data = DigitsDataModule()
    data.setup()
    with torch.no_grad():
        right = [model(b.x).argmax(1) == b.y for b in data.test_dataloader()]
    accuracy = float(torch.cat(right).float().mean())
    assert accuracy == pytest.approx(runs.read(kd_run).student["test"]["accuracy"])


def test_same_seed_same_run_and_another_seed_another(teacher_run: Path, kd_run: Path, tmp_path: Path) -> None:
    override = f"model.teacher_weights={teacher_run}"
    train(compose(override, "trainer.max_epochs=2"), tmp_path / "again")
    assert equal(last(kd_run), last(tmp_path / "again")) and scores(kd_run) == scores(tmp_path / "again")
    train(compose(override, "trainer.max_epochs=2", "seed=1"), tmp_path / "other")
    assert not equal(last(kd_run), last(tmp_path / "other"))


def test_nothing_held_out(teacher_run: Path, tmp_path: Path) -> None:
    metrics = train(compose(f"model.teacher_weights={teacher_run}", "data.val_size=0"), tmp_path / "run")
    assert "best" not in metrics["student"] and "val" not in metrics["student"]["last"]
    assert "test" in metrics["student"]["last"] and "test" in metrics["teacher"]
    assert not (tmp_path / "run" / runs.BEST).exists() and (tmp_path / "run" / "student.safetensors").is_file()


def test_the_test_set_is_read_at_the_end_only(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    loader, step = DigitsDataModule.loader, Distiller.training_step
    monkeypatch.setattr(DigitsDataModule, "loader", lambda self, split: read.append(split) or loader(self, split))
    monkeypatch.setattr(Distiller, "training_step", lambda self, *args: read.append("step") or step(self, *args))
    train(compose(f"model.teacher_weights={teacher_run}", "trainer.max_epochs=2"), tmp_path / "run")
    assert read.count("step") == 10 and "test" not in read[: len(read) - read[::-1].index("step")]
    assert "test" in read


# Going on where it stopped


class Crash(Exception):
    """A machine that fails."""


class StopAfter(Callback):
    """Stops a training as a person would, or as a machine does."""

    def __init__(self, epoch: int, how: type[BaseException]):
        self.epoch, self.how = epoch, how

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise self.how


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    build = train_module.build_trainer

    def interrupt(epoch: int, how: type[BaseException] = Crash) -> None:
        def interrupted(*args: Any, **kwargs: Any) -> Any:
            trainer, log = build(*args, **kwargs)
            trainer.callbacks.append(StopAfter(epoch, how))
            return trainer, log

        monkeypatch.setattr(train_module, "build_trainer", interrupted)

    yield interrupt


@pytest.mark.parametrize("how, seen, epoch", [(Crash, Crash, 0), (KeyboardInterrupt, SystemExit, 2)])
def test_resumed_is_uninterrupted(
    how: type[BaseException], seen: type[BaseException], epoch: int, teacher_run: Path, tmp_path: Path, interrupt: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cfg = compose(f"model.teacher_weights={teacher_run}", "trainer.max_epochs=3")
    train(cfg, tmp_path / "whole")
    with monkeypatch.context():
        interrupt(epoch, how)
        with pytest.raises(seen):
            train(cfg, tmp_path / "parts")
    monkeypatch.undo()
    assert not runs.is_finished(tmp_path / "parts")
    train(cfg, tmp_path / "parts", resume=True)
    assert equal(last(tmp_path / "whole"), last(tmp_path / "parts"))
    assert equal(student(tmp_path / "whole"), student(tmp_path / "parts"))
    assert scores(tmp_path / "whole") == scores(tmp_path / "parts")


def test_seconds_are_those_of_all_parts(teacher_run: Path, tmp_path: Path, interrupt: Any, monkeypatch: Any) -> None:
    cfg = compose("loss=ce", "trainer.max_epochs=3")
    interrupt(2)
    with pytest.raises(Crash):
        train(cfg, tmp_path / "run")
    monkeypatch.undo()
    state = torch.load(tmp_path / "run" / runs.LAST, weights_only=True)
    first = state["callbacks"]["TrainLog"]
    assert 0 < first["seconds"] < 60 and first["parts"] == 1
    first["seconds"] += 1000
    torch.save(state, tmp_path / "run" / runs.LAST)
    metrics = train(cfg, tmp_path / "run", resume=True)
    assert 1000 < metrics["seconds"] < 1060 and metrics["parts"] == 2


def test_the_best_checkpoint_survives(teacher_run: Path, tmp_path: Path, interrupt: Any, monkeypatch: Any) -> None:
    """The best epoch was before the interruption: what comes after is worse, for the learning rate explodes."""
    cfg = compose(f"model.teacher_weights={teacher_run}", "loss=ce", "trainer.max_epochs=3")
    interrupt(2)
    with pytest.raises(Crash):
        train(cfg, tmp_path / "run")
    monkeypatch.undo()
    best = (tmp_path / "run" / runs.BEST).read_bytes()
    epoch = torch.load(tmp_path / "run" / runs.BEST, weights_only=True)["epoch"]
    last_state = torch.load(tmp_path / "run" / runs.LAST, weights_only=True)
    for group in last_state["optimizer_states"][0]["param_groups"]:
        group["lr"] = group["initial_lr"] = 100.0
    last_state["lr_schedulers"][0]["base_lrs"] = [100.0]
    torch.save(last_state, tmp_path / "run" / runs.LAST)
    metrics = train(cfg, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / runs.BEST).read_bytes() == best
    assert metrics["student"]["best"]["epoch"] == epoch + 1 < metrics["student"]["last"]["epoch"] == 3


def test_a_finished_run_goes_on_with_more_epochs(teacher_run: Path, tmp_path: Path) -> None:
    override = f"model.teacher_weights={teacher_run}"
    train(compose(override), tmp_path / "run")
    metrics = train(compose(override, "trainer.max_epochs=2"), tmp_path / "run", resume=True)
    assert metrics["epochs"] == metrics["student"]["last"]["epoch"] == 2


def test_layers_are_read_of_what_runs() -> None:
    """`trainer.sync_batchnorm=true` puts other modules in the places of those whose outputs a loss reads."""
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    distiller = Distiller(student, None, CE(), num_classes=10)
    distiller._extract = FeatureExtractor(distiller.student, ["1"])
    nn.SyncBatchNorm.convert_sync_batchnorm(distiller)
    distiller.on_fit_start()
    assert isinstance(distiller.student[1], nn.SyncBatchNorm)
    assert "1" in distiller.eval()._extract(torch.zeros(2, 3, 8, 8)).features
