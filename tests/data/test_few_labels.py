"""A part of the training images keeps its labels; the others, and pictures of any origin, are trained on without."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kd_lightning.data import DigitsDataModule, ImageFolderDataModule, Preprocess
from kd_lightning.losses import CE, KD
from kd_lightning.losses.distillation import Distillation
from kd_lightning.teachers.opened import TeacherSpec
from kd_lightning.training.label_checks import check_labels, tell_few_labels
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError


def digits(**values) -> DigitsDataModule:
    data = DigitsDataModule(**values)
    data.setup()
    return data


def labels(data) -> torch.Tensor:
    """Labels of the training split in the order of its indices."""
    batches = list(
        data.loader("train").source.batches(torch.arange(data.sizes["train"]), 64, 0, 0, torch.device("cpu"))
    )
    return torch.cat([batch.y for batch in batches])


def pictures(folder: Path, count: int = 5) -> Path:
    (folder / "deep").mkdir(parents=True)
    for i in range(count):
        size = (30 + i, 20)
        pixels = np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("deep" if i % 2 else "") / f"{i}.png")
    (folder / "readme.txt").write_text("")
    return folder


def test_a_fraction_of_every_class_keeps_its_label():
    whole, few = labels(digits()), labels(digits(label_fraction=0.1))
    kept = few != UNLABELED
    assert torch.equal(few[kept], whole[kept])
    counts, wanted = torch.bincount(few[kept], minlength=10), torch.bincount(whole) * 0.1
    assert torch.all((counts - wanted).abs() <= 0.5)
    assert torch.equal(digits(label_fraction=0.1).labelled, kept.nonzero().flatten()) and digits().labelled is None
    assert digits(label_fraction=0.1).sizes == digits().sizes


def test_more_labels_include_the_fewer_and_the_seed_of_the_run_changes_none():
    few, more = (labels(digits(label_fraction=part)) != UNLABELED for part in (0.1, 0.4))
    assert torch.all(more[few])
    assert torch.equal(few, labels(digits(label_fraction=0.1, seed=9)) != UNLABELED)
    assert not torch.equal(few, labels(digits(label_fraction=0.1, split_seed=9)) != UNLABELED)


def test_train_size_comes_first():
    data = digits(train_size=100, label_fraction=0.2)
    assert data.sizes["train"] == 100 and len(data.labelled) == 20
    assert torch.equal(data.splits["train"].padded, digits(train_size=100).splits["train"].padded)


def test_withheld_labels_change_no_answer_of_a_teacher_but_what_a_teacher_learns():
    few = digits(label_fraction=0.5)
    assert few.fingerprint() == digits().fingerprint()  # so a cache of answers serves both
    assert few.label_identity() == 0.5 and digits(label_fraction=1.0).label_identity() is None
    assert digits(label_fraction=1).labelled is None


@pytest.mark.parametrize("value", [0, 1.5, -0.1, "many"])
def test_mistakes(value):
    with pytest.raises(UserError, match=r"data.label_fraction must be a number > 0 and <= 1, got"):
        DigitsDataModule(label_fraction=value)


def test_a_mixed_picture_has_an_unknown_class_on_either_side():
    data = digits(label_fraction=0.3, augment={"mixup": 1.0})
    known = labels(digits(label_fraction=0.3)) != UNLABELED
    whole = labels(digits())
    sides = []
    for batch in data.train_dataloader():
        assert torch.equal(batch.y != UNLABELED, known[batch.index])
        other = data.augment.mixing.partner(0, 0, batch.index, 1293, 1)[0]
        assert torch.equal(batch.mixed.y, torch.where(known[other], whole[other], UNLABELED))
        sides += list(zip((batch.y < 0).tolist(), (batch.mixed.y < 0).tolist(), strict=True))
    assert set(sides) == {(False, False), (False, True), (True, False), (True, True)}


def test_plain_training_mixes_labelled_pictures_only():
    """A pair with an unknown half has no cross-entropy: nine of ten labels would be lost."""
    data = digits(label_fraction=0.1, augment={"mixup": 0.5, "cutmix": 0.5})
    data.drop_unlabeled()
    known = set(data.labelled.tolist())
    for batch in data.train_dataloader():
        assert (batch.y != UNLABELED).all() and (batch.mixed.y != UNLABELED).all()
        assert set(batch.mixed.index.tolist()) <= known


def test_pictures_of_any_origin_come_after_the_data_sets_own(tmp_path, capsys):
    root = pictures(tmp_path / "more")
    data = DigitsDataModule(unlabeled_root=str(root), train_size=200)
    data.prepare_data()
    data.setup()
    assert "1 × .txt file" in capsys.readouterr().out
    assert data.sizes == {"train": 205, "val": 144, "test": 360} and data.labelled.tolist() == list(range(200))
    assert labels(data)[200:].tolist() == [UNLABELED] * 5
    paths = sorted(root.rglob("*.png"))
    wanted = torch.stack([Preprocess(8, 1.0, data.normalize).read(path) for path in paths])
    assert torch.equal(data.splits["train"].padded[200:, 1:-1, 1:-1], wanted)
    assert data.fingerprint() != digits(train_size=200).fingerprint()
    Image.new("RGB", (9, 9)).save(paths[0])
    assert DigitsDataModule(unlabeled_root=str(root), train_size=200).fingerprint() != data.fingerprint()


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng([i, name == "cat"]).integers(0, 256, (12, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / "train" / name / f"{i}.png")
    return tmp_path / "photos"


def test_folders_of_photos(photos, tmp_path):
    def make(**values) -> ImageFolderDataModule:
        return ImageFolderDataModule(photos, image_size=8, num_workers=0, **values)

    few = make(label_fraction=0.25, unlabeled_root=pictures(tmp_path / "more", 7))
    few.prepare_data()
    whole = make()
    for data in (few, whole):
        data.setup()
    assert few.sizes == {"train": 39, "val": 4, "test": 4} and len(few.labelled) == 8 and whole.labelled is None
    y = labels(few)
    kept = y[:32] != UNLABELED
    assert torch.bincount(y[:32][kept]).tolist() == [4, 4] and y[32:].tolist() == [UNLABELED] * 7
    assert torch.equal(y[:32][kept], labels(whole)[kept])
    assert few.fingerprint() != whole.fingerprint()  # by its further pictures


def test_a_picture_to_test_on_is_not_trained_on_without_label_either(photos, tmp_path, capsys):
    root = pictures(tmp_path / "more")
    data = ImageFolderDataModule(photos, image_size=8, num_workers=0)
    data.setup()
    held_out = data.splits["test"].photos.path(0)
    (root / "x.png").write_bytes(held_out.read_bytes())
    capsys.readouterr()
    more = ImageFolderDataModule(photos, image_size=8, num_workers=0, unlabeled_root=root)
    more.setup()
    assert f"{root}: left out 1 × copy of a picture in val or test" in capsys.readouterr().out
    assert more.sizes["train"] == data.sizes["train"] + 5


def test_a_folder_without_classes_is_trained_on_without_labels(tmp_path, capsys):
    pictures(tmp_path / "train", 7).rename(tmp_path / "flat")
    (tmp_path / "flat" / "deep").rename(tmp_path / "flat" / ".hidden")
    (tmp_path / "flat").rename(tmp_path / "train")
    words = {"root": tmp_path, "image_size": 16, "num_workers": 0}
    with pytest.raises(UserError, match=r"train has images, but no folder for each class; .*make .*test with a folder"):
        ImageFolderDataModule(**words).setup()
    for i, name in enumerate(("cat", "dog")):
        pictures(tmp_path / "test" / name, 3 + i)
    with pytest.raises(UserError, match=r"test has pictures of train"):
        ImageFolderDataModule(**words).setup()
    for i, path in enumerate((tmp_path / "train").glob("*.png")):
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(path)
    data = ImageFolderDataModule(**words)
    data.setup()
    assert data.classes == ["cat", "dog"] and data.sizes == {"train": 4, "val": 0, "test": 7}
    assert (labels(data) == UNLABELED).all() and data.labelled.tolist() == []
    assert "no folders of classes: 4 images without labels, and without validation" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"data.label_fraction: no training sample has a label; leave it out"):
        ImageFolderDataModule(**words, label_fraction=0.5).setup()


@pytest.mark.parametrize(
    ("method", "weights", "message"),
    [
        (CE(), None, "this loss learns from labels; use loss=kd_only"),
        (KD(alpha=0.5, ce_weight=0.5), "a.pt", "this loss learns from labels; use loss=kd_only"),
        (KD(alpha=1, ce_weight=0), "auto", "no teacher can be trained here; give the weights"),
        (KD(alpha=1, ce_weight=0), "a.pt", None),
    ],
)
def test_without_any_label_only_a_teacher_that_is_there_can_teach(method, weights, message):
    data, loss = digits(), Distillation(method)
    data._labelled = torch.empty(0, dtype=torch.int64)
    specs = [TeacherSpec(name="resnet8", kwargs={}, weights=weights)] if weights else []
    with pytest.raises(UserError, match=message) if message else nullcontext():
        check_labels(loss, data, specs)


@pytest.mark.parametrize(
    ("ce_weight", "labelled", "told"), [(1, 240, True), (0.1, 240, False), (1, 2000, False), (1, 0, False)]
)
def test_few_labels_with_much_weight_are_told(ce_weight, labelled, told, capsys):
    tell_few_labels(Distillation(KD(ce_weight=ce_weight)), labelled, 2430)
    assert ("240 of 2,430 training samples" in capsys.readouterr().out) == told


def test_empty_or_missing_folders(tmp_path):
    with pytest.raises(UserError, match=r"data.unlabeled_root=.*nowhere: there is no such folder"):
        DigitsDataModule(unlabeled_root=tmp_path / "nowhere").prepare_data()
    with pytest.raises(UserError, match=r"data.unlabeled_root=.* has no images"):
        DigitsDataModule(unlabeled_root=tmp_path).prepare_data()
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(UserError, match=r"cannot read .*a.png: not an image"):
        DigitsDataModule(unlabeled_root=tmp_path).prepare_data()


@pytest.mark.parametrize("module", [DigitsDataModule, ImageFolderDataModule])
def test_an_unknown_key_is_told_with_the_nearest(module):
    own = {} if module is DigitsDataModule else {"root": "/nowhere"}
    for key, near in (("batchsize", "batch_size"), ("label_fractions", "label_fraction"), ("val_siz", "val_size")):
        with pytest.raises(UserError, match=rf"unknown key data\.{key}; it has .*did you mean '{near}'\?"):
            module(**own, **{key: 1})
