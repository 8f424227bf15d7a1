"""Labels by task that follow from the classes of a data set."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kd_lightning.data import AudioFolderTasks, DigitsDataModule, DigitsTasks, ImageFolderTasks, TextFilesTasks
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError
from tests.data.test_recordings import recordings

PARITY = {"even": list("02468"), "odd": list("13579")}
TASKS: dict[str, Any] = {"digit": None, "parity": PARITY}


def digits(**more: Any) -> DigitsTasks:
    data = DigitsTasks(**({"tasks": TASKS, "train_size": 320, "batch_size": 64} | more))
    data.setup()
    return data


def test_every_split_has_the_labels_of_each_task() -> None:
    data, plain = digits(), DigitsDataModule(train_size=320, batch_size=64)
    plain.setup()
    assert data.tasks == {"digit": 10, "parity": 2} and data.classes == [*"0123456789", "even", "odd"]
    assert data.model_kwargs() == {"num_classes": 12, "image_size": 8, "tasks": data.tasks}
    for split in ("train", "val", "test"):
        for mine, theirs in zip(data.loader(split), plain.loader(split), strict=True):
            assert mine.x.equal(theirs.x) and mine.index.equal(theirs.index)
            assert mine.y["digit"].equal(theirs.y) and mine.y["parity"].equal(theirs.y % 2)
    assert data.fingerprint() == plain.fingerprint()  # caches of teachers' answers stay


@pytest.mark.parametrize("make", [lambda: digits(task="parity"), lambda: digits().of("parity")])
def test_one_task_alone_is_ordinary_data(make: Any) -> None:
    data, both = make(), digits()
    assert data.classes == ["even", "odd"] and data.num_classes == 2 and not data.tasks
    assert "tasks" not in data.model_kwargs() and data.label_identity() != digits(task="digit").label_identity()
    for mine, theirs in zip(data.train_dataloader(), both.train_dataloader(), strict=True):
        assert mine.y.equal(theirs.y["parity"])
    plain = data.plain_train().batches(torch.arange(320), 320, 0, 0, torch.device("cpu"))
    assert set(next(plain).y.tolist()) == {0, 1}


def test_the_task_of_the_classes_as_they_are_is_the_data_itself() -> None:
    plain = DigitsDataModule(train_size=320, batch_size=64)
    assert digits(task="digit").label_identity() == plain.label_identity()  # so its teacher is found again


def test_some_labels_of_one_task_are_hidden_the_same_ones_in_each_epoch() -> None:
    data = digits(task_label_fraction={"parity": 0.25})
    hidden = []
    for epoch in (0, 1):
        loader = data.train_dataloader()
        loader.epoch = epoch
        batches = list(loader)
        index, y = (torch.cat(parts) for parts in zip(*[(b.index, b.y["parity"]) for b in batches], strict=True))
        assert all((b.y["digit"] >= 0).all() for b in batches)
        hidden.append(set(index[y == UNLABELED].tolist()))
    assert hidden[0] == hidden[1] and 0.65 < len(hidden[0]) / 320 < 0.85
    assert all((batch.y["parity"] >= 0).all() for batch in data.test_dataloader())
    mixed = [
        batch.mixed for batch in digits(task_label_fraction={"parity": 0.25}, augment={"mixup": 1.0}).train_dataloader()
    ]
    partners, y = (torch.cat(parts) for parts in zip(*[(m.index, m.y["parity"]) for m in mixed], strict=True))
    assert set(partners[y == UNLABELED].tolist()) <= hidden[0], "nor does the other half of a picture tell it"
    assert not set(partners[y != UNLABELED].tolist()) & hidden[0]
    alone = data.of("parity").labelled
    assert alone is not None and set(alone.tolist()) == set(range(320)) - hidden[0]
    assert data.of("digit").labelled is None


def test_mixed_pictures_and_unlabeled_ones_have_their_labels_by_task_too() -> None:
    data = digits(augment={"mixup": 1.0}, label_fraction=0.5)
    batch = next(iter(data.train_dataloader()))
    assert batch.mixed is not None
    for digit, parity in ((batch.y["digit"], batch.y["parity"]), (batch.mixed.y["digit"], batch.mixed.y["parity"])):
        assert parity.equal(torch.where(digit < 0, UNLABELED, digit % 2)) and (digit < 0).any()
    assert batch.of("parity").mixed.y.equal(batch.mixed.y["parity"])


def test_sentences_have_tasks_too(tmp_path: Path) -> None:
    lines = [f"word{i % 9} word{i % 4}\t{['good', 'fair', 'bad', 'poor'][i % 4]}" for i in range(60)]
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    tasks = {"grade": None, "sign": {"plus": ["good", "fair"], "minus": ["bad", "poor"]}}
    data = TextFilesTasks(root=str(tmp_path), tasks=tasks, batch_size=8)
    data.prepare_data()
    data.setup()
    names = data.all_tasks["grade"]
    for batch in data.train_dataloader():
        wanted = [0 if names[k] in ("good", "fair") else 1 for k in batch.y["grade"].tolist()]
        assert batch.y["sign"].tolist() == wanted


def test_files_have_their_names_and_recordings_their_waves(tmp_path: Path) -> None:
    """Stored answers and files with preprocessing ask for them; both were an AssertionError."""
    for name, k in itertools.product(("cat", "dog"), range(8)):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (30 * k, 0, 9)).save(tmp_path / "photos" / "train" / name / f"{k}.png")
    tasks = {"kind": None, "same": {"one": ["cat"], "two": ["dog"]}}
    photos = ImageFolderTasks(tmp_path / "photos", image_size=8, num_workers=0, tasks=tasks)
    waves = {"augment": {}, "sample_rate": 4000, "seconds": 0.4, "bands": 16}
    sounds = AudioFolderTasks(
        recordings(tmp_path / "sounds", 8), tasks={"pitch": {"up": ["high"], "down": ["low"]}}, **waves
    )
    for data in (photos, sounds):
        data.prepare_data()
        data.setup()
    names = photos.sample_names()
    assert names and len(names) == photos.sizes["train"] and all(name.startswith("train/") for name in names)
    assert sounds.raw_samples("test", torch.arange(1)).shape == (1, 1600)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"tasks": {}}, "data.tasks must name the tasks"),
        ({"tasks": {"a b": None}}, "'a b' is no name of a task"),
        ({"tasks": {"logits": None}}, "'logits' is no name of a task"),
        ({"tasks": {"p": {"even": list("02468")}}}, "data.tasks.p must have two or more classes"),
        ({"tasks": {"p": {"even": "02468", "odd": list("13579")}}}, "data.tasks.p.even must be a list of classes"),
        ({"tasks": {"p": {"even": list("02468"), "odd": list("1357")}}}, "data.tasks.p lacks 9; each class"),
        ({"tasks": {"p": {"even": list("024689"), "odd": list("13579")}}}, "data.tasks.p names the class '9' twice"),
        ({"tasks": {"p": {"even": list("02468"), "odd": [*"1357", "nine"]}}}, "names 'nine', which is no class"),
        ({"task": "party"}, "data.task must be one of digit, parity, got 'party'; did you mean 'parity'"),
        ({"task_label_fraction": {"x": 0.5}}, "data.task_label_fraction must be one of digit, parity"),
        ({"task_label_fraction": 0.1}, r"data.task_label_fraction must be .*, as \{digit: 0.1\}, got 0.1"),
        ({"task_label_fraction": {"parity": 2}}, "data.task_label_fraction.parity must be a number > 0 and <= 1"),
        ({"taks": 1}, "unknown key data.taks; it has .*did you mean 'tasks'"),
    ],
)
def test_a_mistake_is_one_line(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        digits(**values)
    assert "\n" not in str(caught.value)
