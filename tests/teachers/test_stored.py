"""Stored answers as a teacher: what the file says is what the student learns, or one line says why it is not."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import kd_lightning.cache
from kd_lightning import runs
from kd_lightning.config import build
from kd_lightning.data import ImageFolderDataModule
from kd_lightning.data.module import DataModule
from kd_lightning.evaluation.record import evaluate
from kd_lightning.evaluation.verify import verify
from kd_lightning.losses.functional import kd as kd_loss
from kd_lightning.runs.students import load_student
from kd_lightning.teachers.stored import StoredAnswers, StoredTeacher
from kd_lightning.teachers.stored_file import read_stored, write_stored
from kd_lightning.training.build import build_experiment
from kd_lightning.training.run import train
from kd_lightning.types import Batch, Mixed
from kd_lightning.utils.checks import UserError
from tests.conftest import TINY, Finished, compose

pytestmark = pytest.mark.usefixtures("no_pictures")
KEY = "model.teacher_weights"
PLAIN = ("data.augment.pad=0", "data.augment.flip=false")
STORED = ("model.teacher=stored", "model.teacher_views=center")
N, C = 320, 10


@pytest.fixture(scope="module")
def data() -> DataModule:
    """Digits without augmentation, 320 of them to train on."""
    module: DataModule = build(compose(*PLAIN).data, "data")
    module.setup()
    return module


@pytest.fixture(scope="module")
def logits() -> Tensor:
    return 3 * torch.randn(N, C, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes tensors, and words as metadata, into a file."""

    def write(words: dict[str, str] | None = None, **tensors: Tensor) -> Path:
        save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "answers.safetensors", metadata=words)
        return tmp_path / "answers.safetensors"

    return write


def answers(path: Path, data: DataModule, **kwargs: Any) -> Tensor:
    return read_stored(path, data, KEY, **kwargs).of(torch.arange(N))


# What is in the file is what is taught


def test_full_logits_of_both_kinds_and_in_any_order(
    data: DataModule, logits: Tensor, file: Callable[..., Path], tmp_path: Path
) -> None:
    assert torch.equal(answers(file(logits=logits), data), logits)
    mixed = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    assert torch.equal(answers(file(logits=logits[mixed], index=mixed), data), logits)
    np.savez(tmp_path / "a.npz", logits=logits[mixed].numpy(), index=mixed.numpy().astype(np.int32))
    assert torch.equal(answers(tmp_path / "a.npz", data), logits)
    half = answers(file(logits=logits.half()), data)
    assert half.dtype == torch.float32 and torch.equal(half, logits.half().float())


def test_probabilities_are_log_probabilities(data: DataModule, logits: Tensor, file: Callable[..., Path]) -> None:
    p = logits.double().softmax(1)
    torch.testing.assert_close(answers(file(probabilities=p), data), logits.log_softmax(1))
    certain = torch.eye(C)[torch.arange(N) % C]
    z = answers(file(probabilities=certain), data)
    assert z.isfinite().all(), "zeros are possible"
    torch.testing.assert_close(z.softmax(1), certain)


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("given", ["logits and tail", "log-probabilities", "probabilities"])
def test_top_k_is_exact_for_k_classes_and_spreads_the_rest_evenly(
    data: DataModule, logits: Tensor, file: Callable[..., Path], k: int, given: str
) -> None:
    full = logits.double().softmax(1)
    p, classes = full.topk(k)
    tensors: dict[str, Tensor] = {"logits": p.log()}
    if given == "probabilities":
        tensors = {"probabilities": p}
    elif given == "logits and tail":
        others = logits.scatter(1, classes, -torch.inf)
        tensors = {"logits": logits.gather(1, classes), "tail": others.logsumexp(1)}
    told = answers(file(indices=classes.int(), **tensors), data).double().softmax(1)
    torch.testing.assert_close(told.gather(1, classes), p, rtol=1e-4, atol=1e-6)
    rest = told.scatter(1, classes, 0)
    mass = (1 - p.sum(1)).clamp(min=0)
    torch.testing.assert_close(rest.sum(1), mass, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(rest.amax(1), mass / (C - k), rtol=1e-3, atol=1e-6)


def test_the_loss_on_top_k_by_hand_and_all_classes_are_the_full_loss(
    data: DataModule, logits: Tensor, file: Callable[..., Path]
) -> None:
    student = torch.randn(N, C, generator=torch.Generator().manual_seed(3)).double()
    p, classes = logits.double().softmax(1).topk(3)
    got = kd_loss(student, answers(file(indices=classes, probabilities=p), data).double(), 1.0)
    log_q = student.log_softmax(1)
    mass = 1 - p.sum(1)
    known = (p * (p.log() - log_q.gather(1, classes))).sum(1)
    others = log_q.scatter(1, classes, 0).sum(1) / (C - 3)
    by_hand = (known + mass * ((mass / (C - 3)).log() - others)).mean()
    torch.testing.assert_close(got, by_hand, rtol=1e-5, atol=1e-6)
    everything = logits.topk(C)
    for temperature in (1.0, 4.0):
        told = answers(file(indices=everything.indices, logits=everything.values), data)
        assert torch.equal(kd_loss(student, told, temperature), kd_loss(student, logits, temperature))


def test_classes_in_another_order_and_more_of_them(data: DataModule, logits: Tensor, file: Callable[..., Path]) -> None:
    order = ["cow", *reversed(data.classes)]
    wide = torch.cat([torch.full((N, 1), 99.0), logits.flip(1)], 1)
    assert torch.equal(answers(file(logits=wide), data, classes=order), logits)
    assert torch.equal(answers(file({"classes": str(order).replace("'", '"')}, logits=wide), data), logits)
    with pytest.raises(UserError, match=r"has no class '0'"):
        answers(file(logits=logits), data, classes=order[:-1])


def test_files_by_name(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(8):
            place = tmp_path / "photos" / "train" / name / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i + 100 * (name == "cat")).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place)
    photos = ImageFolderDataModule(
        str(tmp_path / "photos"), image_size=16, num_workers=0, batch_size=4, val_size=0.2, test_size=0.2
    )
    photos.setup()
    names = [f"train/{name}/{i}.png" for name in ("dog", "cat") for i in range(8)]  # of those held out, too
    z = torch.arange(32.0).view(16, 2)
    np.savez(tmp_path / "a.npz", logits=z.numpy(), names=np.array(names))
    stored = read_stored(tmp_path / "a.npz", photos, KEY, views="center")
    wanted = photos.sample_names()
    assert len(wanted) == photos.sizes["train"] < 16
    assert torch.equal(stored.values, z[[names.index(name) for name in wanted]])
    np.savez(tmp_path / "a.npz", logits=z[1:].numpy(), names=np.array([n for n in names if n != wanted[0]]))
    with pytest.raises(UserError, match=rf"lacks an answer to '{wanted[0]}' of {len(wanted)}"):
        read_stored(tmp_path / "a.npz", photos, KEY, views="center")
    np.savez(tmp_path / "a.npz", logits=z.numpy(), names=np.array([names[0], *names[:15]]))
    with pytest.raises(UserError, match=r"'train/dog/0\.png' comes more than once"):
        read_stored(tmp_path / "a.npz", photos, KEY, views="center")
    plain = next(iter(photos.plain_train().batches(torch.arange(4), 4, 0, 0, torch.device("cpu"))))
    again = next(iter(photos.plain_train().batches(torch.arange(4), 4, 5, 9, torch.device("cpu"))))
    assert torch.equal(plain.x, again.x), "as they are"


# Bad input


def bad(logits: Tensor) -> dict[str, tuple[dict[str, Tensor], str]]:
    index = torch.arange(N)
    p = logits.softmax(1)
    nan = logits.clone()
    nan[7, 2] = torch.nan
    top = p.topk(3)
    return {
        "no answers": ({"index": index}, "must have either logits or probabilities, got none"),
        "both": ({"logits": logits, "probabilities": p}, "either logits or probabilities, got logits, probabilities"),
        "unknown entry": ({"logit": logits}, "unknown entry 'logit'; did you mean 'logits'"),
        "nan": ({"logits": nan}, "logits of row 7 are nan or infinite"),
        "too few samples": ({"logits": logits[1:]}, "has answers to 319 samples, and digits trains on 320"),
        "too many samples": ({"logits": torch.cat([logits, logits])}, "has answers to 640 samples"),
        "missing index": ({"logits": logits[2:], "index": index[2:]}, "lacks an answer to sample 0 and 1 more of 320"),
        "duplicate index": ({"logits": logits, "index": index.clamp(min=1)}, "index 1 comes 2 times"),
        "index out of range": ({"logits": logits, "index": index + 1}, "index 320 is none of the 320"),
        "index of another length": ({"logits": logits, "index": index[1:]}, r"index must be whole numbers \[320\]"),
        "classes": ({"logits": logits[:, :9]}, "has 9 classes, and the data has 10"),
        "one dimension": ({"logits": logits[:, 0]}, r"must be numbers \[N, classes\]"),
        "whole numbers": ({"logits": logits.long()}, r"must be numbers \[N, classes\]"),
        "sum": ({"probabilities": 0.9 * p}, "probabilities of sample 0 sum to 0.9, not to 1 and 319 more"),
        "negative": ({"probabilities": torch.cat([p[:, :9] + 0.1, p[:, 9:] - 0.9], 1)}, "sample 0 are negative"),
        "sum above 1": (
            {"probabilities": top.values + 0.5, "indices": top.indices},
            "probabilities of sample 0 sum to 2",
        ),
        "no tail": (
            {"logits": logits.topk(3).values + 5, "indices": top.indices},
            "has no tail, and logits of sample 0",
        ),
        "tail of all": ({"logits": logits, "tail": logits[:, 0]}, "tail without indices"),
        "tail of probabilities": (
            {"probabilities": top.values, "indices": top.indices, "tail": logits[:, 0]},
            "tail is for logits",
        ),
        "shape of indices": (
            {"logits": top.values.log(), "indices": index},
            r"indices must be whole numbers \[320, 3\]",
        ),
        "class out of range": ({"logits": top.values.log(), "indices": top.indices + 9}, "and the data has 10 classes"),
        "class twice": ({"logits": top.values.log(), "indices": 0 * top.indices}, "of sample 0 name a class twice"),
    }


@pytest.mark.parametrize("what", [*bad(torch.zeros(N, C))])
def test_a_wrong_file_is_one_line(what: str, data: DataModule, logits: Tensor, file: Callable[..., Path]) -> None:
    tensors, told = bad(logits)[what]
    with pytest.raises(UserError, match=told) as e:
        answers(file(**tensors), data)
    assert str(e.value).startswith(f"{KEY}: ") and "\n" not in str(e.value)


class Shell:
    """A pickle that would leave a trace if it ran."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch hacked",)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_file_is_one_line(content: bytes, suffix: str, data: DataModule, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(UserError, match="is damaged or no file of stored predictions"):
        answers(tmp_path / f"a{suffix}", data)


def test_code_in_a_file_is_not_run(data: DataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", logits=np.array([Shell()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="is damaged or no file of stored predictions"):
        answers(Path("a.npz"), data)
    assert not Path("hacked").exists()


def test_of_other_samples(data: DataModule, logits: Tensor, file: Callable[..., Path]) -> None:
    path = file({"fingerprint": data.samples_fingerprint()}, logits=logits)
    assert torch.equal(answers(path, data), logits)
    other: DataModule = build(compose(*PLAIN, "data.split_seed=1").data, "data")
    other.setup()
    with pytest.raises(UserError, match="is of other training samples than those of digits: its fingerprint is"):
        answers(path, other)
    augmented: DataModule = build(compose("data.augment.pad=1", "data.normalize.mean=[0,0,0]").data, "data")
    assert augmented.samples_fingerprint() == data.samples_fingerprint(), "other views of the same samples"
    assert augmented.fingerprint() != data.fingerprint()


@pytest.mark.parametrize(
    "words, told",
    [
        (("model.teacher=stored",), "stored needs a file of answers, .safetensors or .npz"),
        (("model.teacher=stored", f"{KEY}=answers.pt"), "must be a file .safetensors or .npz"),
        (("model.teacher=stored", f"{KEY}=none.npz"), "none.npz does not exist"),
        (("model.teacher=stored", f"{KEY}=FILE", "data.augment.pad=1"), "model.teacher_views=center gives the answer"),
        ((*STORED[:1], f"{KEY}=FILE", "model.teacher_views=all"), "model.teacher_views must be center or null"),
        ((*STORED, f"{KEY}=FILE", "model.teacher_normalize=imagenet"), "model.teacher_normalize is for a network"),
        ((*STORED, f"{KEY}=FILE", "model.teacher_calibration=temperature"), "has no answers to them"),
        ((*STORED, f"{KEY}=FILE", "loss=fitnets"), "stored answers and exported files give logits only"),
        ((*STORED, f"{KEY}=FILE", "loss=simkd"), "stored answers and exported files give logits only"),
        ((*STORED, f"{KEY}=FILE", "loss=srrl"), "stored answers and exported files give logits only"),
        ((*STORED, f"{KEY}=FILE", "loss=ab"), "stored answers and exported files give logits only"),
        ((*STORED, f"{KEY}=FILE", "data.augment.mixup=0.2"), "has no answer to mixed pictures"),
        ((*STORED, f"{KEY}=FILE"), "the stored answers are right on"),
        (("model.teacher_views=center",), "model.teacher_views=center is for stored answers"),
        ((f"{KEY}=answers.npz",), "say model.teacher=stored"),
    ],
)
def test_what_stored_answers_cannot_do_is_told_before_training(
    cli: Any, words: tuple[str, ...], told: str, file: Callable[..., Path], logits: Tensor, data: DataModule
) -> None:
    index = data.splits["train"].labels  # type: ignore[attr-defined]
    wrong = torch.eye(C)[(index + 1) % C]  # nothing right
    path = file(logits=wrong)
    done = cli(*[word.replace("FILE", str(path)) for word in words])
    assert done.status == 2 and told in done.err and len(done.err.splitlines()) == 1, done.err
    assert not runs.below(Path("outputs"))


def test_it_answers_training_batches_only(logits: Tensor) -> None:
    teacher = StoredTeacher(StoredAnswers(logits, C))
    batch = Batch(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long), torch.tensor([5, 0, 5]))
    assert torch.equal(teacher(batch).logits, logits[[5, 0, 5]])
    with pytest.raises(UserError, match="answers to training samples only"):
        teacher.evaluate(batch)
    with pytest.raises(UserError, match="mixed"):
        teacher(batch._replace(mixed=Mixed(batch.y, torch.ones(3), batch.index)))
    teacher.apply_(lambda t: t.to(torch.float64) if t.is_floating_point() else t)
    assert torch.equal(teacher(batch).logits, logits[[5, 0, 5]]), "moved and cast with the student"


# End to end


def export(command: Callable[..., Finished], *words: object) -> Finished:
    return command(kd_lightning.cache, *words)


def test_what_cache_exports_teaches_as_the_live_teacher_does(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Finished]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*TINY, *PLAIN, f"{KEY}={teacher_run}"]
    done = export(command, "--export", "a.safetensors", *words)
    assert done.status == 0 and "model.teacher=stored model.teacher_weights=a.safetensors" in done.out, done.err
    live = train(compose(*PLAIN, f"{KEY}={teacher_run}", "model.teacher_cache=off"), tmp_path / "live")
    stored = train(compose(*PLAIN, STORED[0], f"{KEY}=a.safetensors"), tmp_path / "stored")
    assert stored["train"]["kd"] == pytest.approx(live["train"]["kd"], rel=1e-3)
    assert stored["student"]["last"]["test"]["nll"] == pytest.approx(live["student"]["last"]["test"]["nll"], rel=1e-3)
    assert "teacher" not in stored and "agreement" not in stored["student"]["last"]["test"]
    assert stored["stored_teacher"]["train"]["accuracy"] > 0.3
    again = export(command, "--export", "a.safetensors", "experiment=benchmark_digits", *words)
    assert again.status == 2 and "--export: a.safetensors exists" in again.err
    assert "sweep" not in again.out + again.err, "an experiment that is a sweep has one teacher"


def test_top_k_of_the_export_is_the_top_of_the_network(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Finished]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*TINY, f"{KEY}={teacher_run}"]
    assert export(command, "--export", "k.npz", "--top-k", 3, *words).status == 0
    assert export(command, "--export", "all.npz", *words).status == 0
    digits: DataModule = build(compose().data, "data")
    digits.setup()
    top, full = (answers(Path(name), digits, views="center").softmax(1) for name in ("k.npz", "all.npz"))
    torch.testing.assert_close(top.topk(3).values, full.topk(3).values)
    with torch.no_grad():
        network: nn.Module = load_student(teacher_run)[0]
        batch = next(iter(digits.plain_train().batches(torch.arange(N), N, 0, 0, torch.device("cpu"))))
        torch.testing.assert_close(network(batch.x).softmax(1), full, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "words, told",
    [
        (("--export", "--top-k", "3"), "--export: expected one argument"),
        (("--export", "a.pt"), "--export: a.pt must be a file .safetensors or .npz"),
        (("--export", "no/a.npz"), "--export: there is no folder"),
        (("--top-k", "3"), "--top-k is for --export FILE"),
        (("--export", "a.npz", "--top-k", "half"), "--top-k: invalid int value: 'half'"),
        (("--export", "a.npz", "--top-k", "11"), "--top-k must be a whole number >= 1 and <= 10"),
        (("--export", "a.npz", "loss=ce"), "nothing to export"),
    ],
)
def test_a_wrong_export_is_one_line(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Finished]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = export(command, *words, *(word for word in TINY if word not in words))
    assert done.status == 2 and told in done.err and len(done.err.splitlines()) == 1, done.err
    assert not list(tmp_path.rglob("*.npz"))


def test_a_run_with_stored_answers_is_evaluated_without_a_teacher(
    teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(teacher_run, tmp_path / "a.npz")
    train(compose(*STORED, f"{KEY}={tmp_path / 'a.npz'}"), tmp_path / "run")
    assert "right on training samples" in capsys.readouterr().out
    values = evaluate(tmp_path / "run", images=0)
    assert values["teacher"] is None and "training samples only; the student is evaluated alone" in values["note"]
    assert verify(tmp_path / "run").ok


def write(teacher_run: Path, path: Path) -> None:
    """Write what the teacher says to training samples as they are."""
    digits = build_experiment(compose("loss=ce")).data
    batch = next(iter(digits.plain_train().batches(torch.arange(N), N, 0, 0, torch.device("cpu"))))
    with torch.no_grad():
        write_stored(path, load_student(teacher_run)[0](batch.x), {"fingerprint": digits.samples_fingerprint()})


def test_stored_answers_beside_a_network(teacher_run: Path, tmp_path: Path) -> None:
    write(teacher_run, tmp_path / "a.npz")
    cfg = compose(
        "model.teacher=[stored,resnet8]",
        f"{KEY}=[{tmp_path / 'a.npz'},{teacher_run}]",
        "model.teacher_views=center",
        "model.teacher_cache=off",
    )
    metrics = train(cfg, tmp_path / "run")
    assert "teacher" not in metrics and len(metrics["stored_teacher"]["weights"]) == 2
    assert math.isfinite(metrics["train"]["kd"])
