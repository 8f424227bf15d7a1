"""A folder of photos of which nothing names a class: the teacher names those that the student is measured on."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from kd_lightning import runs
from kd_lightning.data import ImageFolderDataModule
from kd_lightning.data.images.labels_file import Labels, read_labels, write_labels
from kd_lightning.deploy.steps import prune
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.record import evaluate
from kd_lightning.report.groups import group
from kd_lightning.runs import claims
from kd_lightning.runs.students import load_student
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
    return compose(*PHOTOS, *OWN, f"data.root={pile}", *HELD_OUT, "data.labels=named.json", "loss=kd_only", *words)


def test_the_student_is_measured_by_its_agreement_with_the_teacher(
    pile: Path, teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = config(pile, f"model.teacher_weights={teacher_run}")
    metrics = train(cfg, tmp_path / "run")
    told = " ".join(capsys.readouterr().out.split())
    assert "labels: 8 images are held out for val and 10 for test. The teacher named their classes (" in told
    assert "in named.json Until you correct that file, accuracy is agreement with the teacher." in told
    test = metrics["student"]["last"]["test"]
    assert test["accuracy"] == test["agreement"] and metrics["teacher"]["test"]["accuracy"] == 1
    assert metrics["labels"] == 0 and metrics["images_seen"] == 32  # without the copy of an image held out
    labels = read_labels(Path("named.json"))
    assert labels.classes == list(map(str, range(10))) and (len(labels.val), len(labels.test)) == (8, 10)
    assert claims.state(tmp_path / "run", cfg) == "finished", "the same command is the same run"
    scores = evaluate(tmp_path / "run", ["data.num_workers=0"], 0)
    assert scores["student"]["last"]["test"]["accuracy"] == pytest.approx(test["accuracy"])
    assert scores["samples"] == metrics["samples"]


def test_a_corrected_file_is_another_measure_of_the_same_samples(
    pile: Path, teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"model.teacher_weights={teacher_run}", "model.teacher_cache=tables")
    fill(config(pile, *words))
    export(config(pile, *words), tmp_path / "said.npz")
    train(config(pile, *words), tmp_path / "before")
    found = json.loads(Path("named.json").read_text())
    found["test"] = {name: str((int(label) + 1) % 10) for name, label in found["test"].items()}
    Path("named.json").write_text(json.dumps(found))
    capsys.readouterr()
    with pytest.raises(
        UserError, match=r"resume: the fingerprint of data.labels is .*, and was .* when .*before stopped"
    ):
        train(config(pile, *words, "trainer.max_epochs=2"), tmp_path / "before", resume=True)
    found_before = tables()
    after = train(config(pile, *words, "seed=1", "data.view_seed=0"), tmp_path / "after")
    told = capsys.readouterr().out
    assert after["teacher"]["test"]["accuracy"] == 0 and "labels:" not in told and "named by resnet8 (" in told
    assert tables() == found_before, "the answers that are there were found"
    before, now = group([runs.read(tmp_path / "before"), runs.read(tmp_path / "after")])
    assert before.values["data.labels"] != now.values["data.labels"], "no mean over both"
    stored = ("model.teacher=stored", "model.teacher_weights=said.npz", "model.teacher_views=center")
    assert train(config(pile, *stored), tmp_path / "stored")["samples"] == after["samples"]


def tables() -> list[str]:
    return sorted(map(str, Path("tables").rglob("*.bin")))


def test_the_file_decides_whatever_the_keys_of_the_split_say(pile: Path) -> None:
    write_labels(pile / "l.json", Labels(["cat", "dog"], {"1.png": "dog"}, {"7.png": "cat", "3.png": "dog"}))
    write_labels(pile / "m.json", Labels(["cat", "dog"], {"1.png": "dog"}, {"3.png": "dog", "7.png": "dog"}, "me"))

    def made(name: str = "l.json", **words: Any) -> ImageFolderDataModule:
        return ImageFolderDataModule(str(pile), image_size=8, num_workers=0, labels=str(pile / name), **words)

    same, corrected = made(val_size=0.3, split_seed=5), made("m.json")
    assert made().fingerprint() == same.fingerprint() == corrected.fingerprint()
    assert made().labels_fingerprint() == same.labels_fingerprint() != corrected.labels_fingerprint()


def test_a_file_that_is_gone_is_not_made_anew_for_what_goes_on(pile: Path, teacher_run: Path, tmp_path: Path) -> None:
    word = f"model.teacher_weights={teacher_run}"
    train(config(pile, word), tmp_path / "run")
    Path("named.json").rename("moved.json")
    gone = "data.labels: named.json, by which the run was measured, is not there; give its place"
    with pytest.raises(UserError, match=gone):
        train(
            config(pile, f"model.teacher_weights={teacher_run}", "trainer.max_epochs=2"), tmp_path / "run", resume=True
        )
    with pytest.raises(UserError, match=gone):
        prune(open_run(tmp_path / "run"), 0.5, tmp_path / "small", distill="student")
    assert not Path("named.json").exists()
    Path("moved.json").rename("named.json")
    prune(open_run(tmp_path / "run"), 0.5, tmp_path / "small")  # without labels the teacher teaches
    small = runs.read(tmp_path / "small")
    assert small.config.loss.ce_weight == 0 and small.metrics["teacher"]["test"]["accuracy"] == 1


def test_who_cannot_learn_or_teach_without_a_class_is_refused_before_anything_is_written(
    pile: Path, teacher_run: Path, tmp_path: Path
) -> None:
    network = load_student(teacher_run)[0]
    torch.save(network.state_dict(), "bare.pt")
    bare, named = "model.teacher_weights=bare.pt", "model.teacher_classes=[a,b,c,d,e,f,g,h,i,j]"
    network.fc.bias.data[3] = 1e4
    torch.save(network.state_dict(), "stubborn.pt")
    stored = ("model.teacher=stored", "model.teacher_weights=said.npz")
    for words, message in (
        (("loss=ce",), "this loss learns from labels"),
        (("loss=kd",), "this loss learns from labels"),
        (("model.teacher_weights=auto",), "no teacher can be trained here"),
        (("model.teacher_weights=gone.pt",), "gone.pt does not exist"),
        ((bare,), r"list them in the order of its outputs, as \[cat,dog\]"),
        ((bare, "model.teacher_classes=[a,b,c,d,e,f,g,h,i,a]"), r"several outputs 'a'; pick some"),
        (("model.teacher_weights=stubborn.pt", named), r"the teacher says 'd' to all 18 images held out; check"),
        (stored, "stored answers cannot make it"),
        ((bare, named, "data.labels=nowhere/named.json"), "there is no folder .*nowhere"),
        (("data.labels=null",), "sort them into such folders. To train without labels, .*data.labels=FILE, a new file"),
        (("loss=ce", f"data.root={pile.parent}"), r"data.root=.* must have a folder train|is made only for images"),
        (("data.labels=3",), "data.labels must be a JSON file, got 3"),
    ):
        with pytest.raises(UserError, match=message):
            train(config(pile, *words), tmp_path / "run")
    assert not Path("named.json").exists() and not (tmp_path / "run").exists()
    train(config(pile, bare, named, "data.val_size=0"), tmp_path / "run")
    labels = read_labels(Path("named.json"))
    assert labels.classes == list("abcdefghij") and not labels.val and len(labels.test) == 10


def test_a_mapping_picks_some_of_the_teachers_classes(pile: Path, teacher_run: Path, tmp_path: Path) -> None:
    words = (f"model.teacher_weights={teacher_run}", "model.teacher_classes={dog: '5', cat: '3'}")
    metrics = train(config(pile, *words), tmp_path / "run")
    assert set(read_labels(Path("named.json")).classes) == {"cat", "dog"}
    assert metrics["teacher"]["test"]["accuracy"] == 1


def test_a_checkpoint_of_a_run_names_the_classes_of_the_run(pile: Path, teacher_run: Path, tmp_path: Path) -> None:
    train(config(pile, f"model.teacher_weights={teacher_run}@last"), tmp_path / "run")
    assert read_labels(Path("named.json")).classes == list(map(str, range(10)))


def test_further_pictures_are_trained_on_too(pile: Path, teacher_run: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for green in (150, 200):
        Image.new("RGB", (20, 20), (9, green, 0)).save(more / f"{green}.png")
    cfg = config(pile, f"model.teacher_weights={teacher_run}", f"data.unlabeled_root={more}")
    assert train(cfg, tmp_path / "run")["images_seen"] == 34


def test_a_name_that_is_not_utf_8(pile: Path, teacher_run: Path, tmp_path: Path) -> None:
    for i in range(20):
        (pile / "train" / f"{i}.png").rename(os.fsdecode(bytes(pile / "train") + b"/%d\xff.png" % i))
    metrics = train(config(pile, f"model.teacher_weights={teacher_run}"), tmp_path / "run")
    assert metrics["teacher"]["test"]["accuracy"] == 1 and "\\udcff" in Path("named.json").read_text()


def test_the_splits_are_those_of_the_file(pile: Path) -> None:
    write_labels(pile / "l.json", Labels(["cat", "dog"], {"1.png": "dog"}, {"7.png": "cat", "3.png": "dog"}))
    data = ImageFolderDataModule(str(pile), image_size=8, num_workers=0, labels=str(pile / "l.json"))
    data.prepare_data()
    data.setup()
    assert data.classes == ["cat", "dog"] and data.sizes == {"train": 47, "val": 1, "test": 2}  # without its copy
    assert [(path.name, y) for path, y in data.splits["test"].photos] == [("3.png", 1), ("7.png", 0)]
    assert (data.splits["train"].photos.labels == UNLABELED).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ('{"classes": ["cat", "dog"], "tests": {}}', "'tests' is none of named_by, classes, val, test.*'test'"),
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


def test_a_file_that_leaves_nothing_to_train_on(pile: Path) -> None:
    every = {path.name: "cat" for path in (pile / "train").iterdir()}
    write_labels(pile / "l.json", Labels(["cat", "dog"], {}, every))
    with pytest.raises(UserError, match=r"data.labels names all images of .*train for val and test; take some out"):
        ImageFolderDataModule(str(pile), image_size=8, num_workers=0, labels=str(pile / "l.json")).setup()


def test_an_empty_folder_is_told_as_such(pile: Path) -> None:
    shutil.rmtree(pile / "train")
    (pile / "train").mkdir()
    write_labels(pile / "l.json", Labels(["cat", "dog"], {}, {"1.png": "cat"}))
    with pytest.raises(UserError, match=r"train must have one folder per class, at least 2, got 0"):
        ImageFolderDataModule(str(pile), image_size=8, num_workers=0, labels=str(pile / "l.json")).setup()


def test_labels_beside_folders_of_classes(pile: Path) -> None:
    write_labels(pile / "l.json", Labels(["cat", "dog"], {}, {"1.png": "cat"}))
    (pile / "test" / "cat").mkdir(parents=True)
    words: dict[str, Any] = {"image_size": 8, "num_workers": 0, "labels": str(pile / "l.json")}
    with pytest.raises(UserError, match=r"data.labels says what val and test are, and .*pile has a folder test"):
        ImageFolderDataModule(str(pile), **words).setup()
    (pile / "test").rename(pile / "train" / "sorted")
    with pytest.raises(UserError, match=r"data.labels is for images without folders of classes"):
        ImageFolderDataModule(str(pile), **words).setup()
