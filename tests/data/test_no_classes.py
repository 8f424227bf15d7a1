"""A folder of photos of which nothing names a class: the teacher names those that the student is measured on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from kd_lightning.data import ImageFolderDataModule
from kd_lightning.data.images.labels_file import Labels, read_labels, write_labels
from kd_lightning.evaluation.record import evaluate
from kd_lightning.models import create_model
from kd_lightning.training.fill import export, fill
from kd_lightning.training.run import train
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError
from tests.conftest import TINY
from tests.data.test_image_folder import compose

pytestmark = pytest.mark.usefixtures("no_pictures")
OWN = [word for word in TINY if not word.startswith("data")]
PHOTOS = ("data=image_folder", "data.image_size=8", "data.num_workers=0", "data.batch_size=16")
HELD_OUT = ("data.test_size=0.2", "data.val_size=0.2")


@pytest.fixture
def pile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """50 pictures of noise in `train`, one of them twice."""
    monkeypatch.chdir(tmp_path)
    train = tmp_path / "pile" / "train"
    train.mkdir(parents=True)
    for i in range(50):
        pixels = np.random.default_rng(i).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(train / f"{i}.png")
    shutil.copy(train / "7.png", train / "copy of 7.png")
    return tmp_path / "pile"


def config(pile: Path, *words: str) -> DictConfig:
    """What `python -m kd_lightning.train` would make of it, with `loss=kd_only` unless another is given."""
    return compose(*PHOTOS, *OWN, f"data.root={pile}", *HELD_OUT, "loss=kd_only", *words)


def files() -> list[Path]:
    return sorted(Path("outputs/labels").glob("*.json"))


def test_the_student_is_measured_by_its_agreement_with_the_teacher(
    pile: Path, teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"model.teacher_weights={teacher_run}"]
    metrics = train(config(pile, *words), tmp_path / "run")
    told = " ".join(capsys.readouterr().out.split())
    assert "train has no classes. The teacher names those of 8 images for val and 10 for test:" in told
    assert "Until you correct that file, accuracy is agreement with the teacher." in told
    test = metrics["student"]["last"]["test"]
    assert test["accuracy"] == test["agreement"] and metrics["teacher"]["test"]["accuracy"] == 1
    assert metrics["labels"] == 0 and metrics["images_seen"] < 50
    (file,) = files()
    labels = read_labels(file)
    assert labels.classes == list(map(str, range(10))) and (len(labels.val), len(labels.test)) == (8, 10)
    before = file.stat().st_mtime_ns
    again = train(config(pile, *words, "seed=1"), tmp_path / "again")
    assert files() == [file] and file.stat().st_mtime_ns == before and again["samples"] == metrics["samples"]
    scores = evaluate(tmp_path / "run", ["data.num_workers=0"], 0)
    assert scores["student"]["last"]["test"]["accuracy"] == pytest.approx(test["accuracy"])

    found = json.loads(file.read_text())
    found["test"] = {name: str((int(label) + 1) % 10) for name, label in found["test"].items()}
    Path("mine.json").write_text(json.dumps(found))
    other = train(config(pile, *words, "data.labels=mine.json"), tmp_path / "other")
    assert other["teacher"]["test"]["accuracy"] == 0 and other["samples"] != metrics["samples"]


def test_the_cache_is_filled_and_stored_answers_teach(pile: Path, teacher_run: Path, tmp_path: Path) -> None:
    words = (f"model.teacher_weights={teacher_run}", "model.teacher_cache=tables")
    fill(config(pile, *words))
    assert len(list(Path("tables").iterdir())) == 1
    train(config(pile, *words), tmp_path / "live")
    assert len(list(Path("tables").iterdir())) == 1  # the run found the table
    export(config(pile, *words), tmp_path / "said.npz")
    stored = ["model.teacher=stored", "model.teacher_weights=said.npz", "model.teacher_views=center"]
    with pytest.raises(UserError, match=r"nothing in .*pile names a class, and stored answers have none to the images"):
        train(config(pile, *stored), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    metrics = train(config(pile, *stored, f"data.labels={files()[0]}"), tmp_path / "run")
    assert metrics["labels"] == 0


def test_who_cannot_learn_or_teach_without_a_class_is_refused_before_anything_is_written(
    pile: Path, teacher_run: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pt"
    torch.save(create_model("resnet8", num_classes=10, image_size=8).state_dict(), bare)
    for words, message in (
        (["loss=ce"], "this loss learns from labels"),
        (["loss=kd"], "this loss learns from labels"),
        (["model.teacher_weights=auto"], "no teacher can be trained here"),
        ([f"model.teacher_weights={bare}"], r"list them in the order of its outputs, as \[cat,dog\]"),
    ):
        with pytest.raises(UserError, match=message):
            train(config(pile, *words), tmp_path / "run")
    assert not files() and not (tmp_path / "run").exists()
    train(
        config(pile, f"model.teacher_weights={bare}", f"model.teacher_classes={list('abcdefghij')}"), tmp_path / "run"
    )
    assert read_labels(files()[0]).classes == list("abcdefghij")


def test_the_splits_are_those_of_the_file(pile: Path) -> None:
    write_labels(pile / "l.json", Labels(["cat", "dog"], {"1.png": "dog"}, {"7.png": "cat", "3.png": "dog"}), "me")
    data = ImageFolderDataModule(str(pile), image_size=8, num_workers=0, labels=str(pile / "l.json"))
    data.prepare_data()
    data.setup()
    assert data.classes == ["cat", "dog"] and data.sizes == {"train": 47, "val": 1, "test": 2}  # without its copy
    assert [(path.name, y) for path, y in data.splits["test"].photos] == [("7.png", 0), ("3.png", 1)]
    assert (data.splits["train"].photos.labels == UNLABELED).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "is no JSON file"),
        ("[]", "must have a list of two or more different names as classes"),
        ('{"classes": ["cat"]}', "must have a list of two or more"),
        ('{"classes": ["cat", "cat"]}', "must have a list of two or more different"),
        ('{"classes": ["cat", "dog"]}', "names no test image"),
        ('{"classes": ["cat", "dog"], "test": ["1.png"]}', r"test must be \{file: class, …\}"),
        ('{"classes": ["cat", "dog"], "test": {"1.png": 0}}', r"test must be \{file: class, …\}"),
        ('{"classes": ["cat", "dog"], "test": {"1.png": "cut"}}', "says that 1.png is 'cut', which is none.*'cat'"),
        ('{"classes": ["cat", "dog"], "test": {"x.png": "cat"}}', "test names x.png, which .*train has not"),
        (
            '{"classes": ["cat", "dog"], "val": {"1.png": "cat"}, "test": {"1.png": "cat"}}',
            "1.png is in val and in test; leave it in one",
        ),
    ],
)
def test_a_file_that_is_something_else(pile: Path, text: str | None, message: str) -> None:
    if text is not None:
        (pile / "l.json").write_text(text)
    with pytest.raises(UserError, match=f"data.labels.*{message}"):
        ImageFolderDataModule(str(pile), image_size=8, num_workers=0, labels=str(pile / "l.json")).setup()


def test_labels_beside_folders_of_classes(pile: Path) -> None:
    write_labels(pile / "l.json", Labels(["cat", "dog"], {}, {"1.png": "cat"}), "me")
    (pile / "test" / "cat").mkdir(parents=True)
    words: dict[str, Any] = {"image_size": 8, "num_workers": 0, "labels": str(pile / "l.json")}
    with pytest.raises(UserError, match=r"data.labels names val and test, but .*pile has folders of them"):
        ImageFolderDataModule(str(pile), **words).setup()
    (pile / "test").rename(pile / "train" / "sorted")
    with pytest.raises(UserError, match=r"data.labels is for images without folders of classes"):
        ImageFolderDataModule(str(pile), **words).setup()
