"""A folder of photos: what it yields, and one clear message for each thing that is wrong with it."""

import errno
import os
import shutil
import zlib
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from kd_lightning.config import CONF_DIR
from kd_lightning.data import ImageFolderDataModule
from kd_lightning.data.images.decode import decode
from kd_lightning.data.images.photos import Photos
from kd_lightning.utils.checks import UserError


def compose(*words: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra.compose("train", overrides=list(words))


def photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32("/".join(path.parts[-3:]).encode()))
    pixels = noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes, ten photos each, of several formats and sizes."""
    for name in ("cat", "dog"):
        for i in range(8):
            photo(tmp_path / "train" / name / f"{i}.jpg", size=(40 + i, 30))
        photo(tmp_path / "train" / name / "palette.png", mode="P")
        photo(tmp_path / "train" / name / "deep" / "grey.PNG", mode="LA")
        (tmp_path / "train" / name / "notes.txt").write_text("not a photo")
    return tmp_path


def make(root: Path, **values) -> ImageFolderDataModule:
    return ImageFolderDataModule(root, **{"image_size": 16, "num_workers": 0, "batch_size": 4, **values})


def test_batches_and_held_out_splits(root, capsys):
    data = make(root)
    data.prepare_data()
    data.setup()
    assert "test: held out 2 of 20 training images" in capsys.readouterr().out
    assert data.sizes == {"train": 16, "val": 2, "test": 2}
    assert (data.classes, data.num_classes, data.num_views) == (["cat", "dog"], 2, None)
    batch = next(iter(data.train_dataloader()))
    assert batch.x.shape == (4, 3, 16, 16) and batch.x.is_contiguous(memory_format=torch.channels_last)
    assert batch.view is None and batch.y.dtype == torch.int64
    paths = [{p for p, _ in data.splits[s].photos} for s in ("train", "val", "test")]
    assert len(set.union(*paths)) == 20
    assert (
        make(root, seed=5, batch_size=2).fingerprint() == data.fingerprint() != make(root, image_size=8).fingerprint()
    )


def test_another_photo_of_the_same_name_and_size_is_other_data(root):
    before = make(root).fingerprint()
    path = sorted((root / "train" / "cat").iterdir())[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert make(root).fingerprint() != before


def test_folders_that_are_there_are_used(root):
    for split, n in (("val", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(n):
                photo(root / split / name / f"{i}.png")
    data = make(root)
    data.setup()
    assert data.sizes == {"train": 20, "val": 6, "test": 4}


def shown(data: ImageFolderDataModule, epoch: int) -> dict[int, torch.Tensor]:
    loader = data.train_dataloader()
    loader.epoch = epoch
    return {int(i): x for batch in loader for i, x in zip(batch.index, batch.x, strict=True)}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # where there is one core
def test_same_pixels_for_any_workers_and_batches(root):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    data = make(root)
    wanted, later = shown(data, 0), shown(data, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert any(not torch.equal(wanted[i], later[i]) for i in wanted)
    workers = make(root, num_workers=2, batch_size=3)
    for _ in range(2):  # workers are kept
        got = shown(workers, 0)
        assert got.keys() <= wanted.keys() and len(got) >= 15
        assert all(torch.equal(got[i], wanted[i]) for i in got)
    assert all(torch.equal(x, later[i]) for i, x in shown(workers, 1).items())


def test_evaluation_is_the_center_of_the_photo(root):
    data = make(root, image_size=28)  # shorter side to 32, then 28 in the middle
    data.setup()
    (batch,) = data.test_dataloader()
    path, _ = data.splits["test"].photos[0]
    image = decode(path)
    image = image.resize((int(32 * image.width / image.height), 32), Image.Resampling.BILINEAR)
    left = round((image.width - 28) / 2)
    wanted = torch.from_numpy(np.array(image.crop((left, 2, left + 28, 30))))
    torch.testing.assert_close(batch.x[:1], data.normalize(wanted[None]), atol=1.01 / 255 / 0.224, rtol=0)  # one of 255


def test_configuration(root):
    config = compose("data=image_folder", f"data.root={root}")
    data = instantiate(config.data)
    assert data.fingerprint() == ImageFolderDataModule(root).fingerprint()


def test_photos_come_with_a_recipe_that_words_replace():
    photos = compose("data=image_folder", "data.root=photos")
    assert photos.optimizer._target_ == "torch.optim.AdamW" and photos.teacher_stage.optimizer.lr == 3e-4
    other = compose("data=image_folder", "data.root=photos", "optimizer=sgd", "teacher_stage=default")
    assert other.optimizer._target_ == "torch.optim.SGD" and other.teacher_stage.optimizer.lr == 0.1
    assert compose("data=digits").optimizer._target_ == "torch.optim.SGD"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["model.teacher_weights=imagenet"], True),
        (["model.teacher=[resnet50,vgg11]", "model.teacher_weights=[auto,imagenet]"], True),
        (["model.teacher_weights=imagenet", "model.student_pretrained=false"], False),
        (["model.teacher_weights=imagenet", "model.student=resnet20"], False),  # it has none
        ([], False),
    ],
)
def test_a_student_of_photos_starts_as_its_teacher(words, wanted):
    assert compose("data=image_folder", "data.root=photos", *words).model.student_pretrained is wanted


def empty_class(root: Path) -> None:
    for path in (root / "train" / "dog").rglob("*.*"):
        path.unlink()


def truncated(root: Path) -> None:
    path = root / "train" / "dog" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-500])


def one_class(root: Path) -> None:
    (root / "train" / "dog").rename(root / "dog")


def tiny_class(root: Path) -> None:
    photo(root / "train" / "emu" / "0.jpg")


def repeated(root: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(3):
            photo(root / "test" / name / f"{i}.png")
        (root / "test" / name / "1.png").write_bytes((root / "train" / name / "0.jpg").read_bytes())


def odd_name(root: Path) -> None:
    folder = os.fsencode(root / "train") + b"/\xff"
    os.mkdir(folder)


def twin_names(root: Path) -> None:
    for name in ("caf\u00e9s", "cafe\u0301s"):
        photo(root / "train" / name / "0.jpg")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / "train").rename(root / "Training"),
            "must have a folder train .*; rename Training to train",
        ),
        (
            lambda root: shutil.copytree(root, root / "set") and shutil.rmtree(root / "train"),
            "give the folder in it: data.root=.*/set$",
        ),
        (lambda root: shutil.rmtree(root) or root.write_bytes(b"PK"), "data.root=.* is a file; give a folder"),
        (lambda root: (root / "val").mkdir(), "val has no folders of classes; fill it or remove it"),
        (lambda root: (root / "train").rename(root / "photos"), "it has photos: if these .* move them into .*/train"),
        (empty_class, "class folder .*train/dog has no images"),
        (truncated, r"cannot read .*train/dog/0.jpg \(.*truncated"),
        (lambda root: (root / "train" / "cat" / "x.png").write_text("hello"), r"cannot read .*x.png \(not an image\)"),
        (one_class, "one folder per class, at least 2, got 1: .'cat'"),
        (
            lambda root: photo(root / "val" / "cat" / "0.jpg"),
            "val must have the same classes as train, but it lacks dog",
        ),
        (lambda root: [photo(root / "test" / c / "0.jpg") for c in ("cat", "dog", "cow")], "test must .* has also cow"),
        (tiny_class, "every class of .*train needs 3 or more images, one for each of train, test, val: emu has 1; add"),
        (repeated, r"test has pictures of train: .*test/cat/1.png is .*train/cat/0.jpg, and 1 more; a picture belongs"),
        (odd_name, r"the name of the class folder '\\\\xff' in .*train is not printable UTF-8"),
        (twin_names, r"two folders for the class 'cafés', .*, whose names differ in blanks or in how accents"),
    ],
)
def test_each_mistake_has_its_message(root, spoil, message):
    spoil(root)
    with pytest.raises(UserError, match=message) as error:
        data = make(root)
        data.prepare_data()
        data.setup()
    assert "\n" not in str(error.value)


def test_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"data.root=.*nowhere: there is no such folder"):
        make(tmp_path / "nowhere").prepare_data()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 0}, "data.image_size must be a whole number >= 1, got 0"),
        ({"test_size": 0}, "data.test_size must be a number > 0 and <= 0.9, got 0"),
        ({"augment": {"min_area": 2}}, "data.augment.min_area must be a number > 0 and <= 1, got 2"),
        (
            {"augment": {"pad": 4}},
            "unknown key data.augment.pad; it has min_area, flip, randaugment, trivialaugment, random_erasing",
        ),
        (
            {"augment": {"randaugment": 9, "trivialaugment": True}},
            "data.augment.randaugment and data.augment.trivialaugment exclude each other; leave one out",
        ),
        ({"augment": {"random_erasing": 2}}, "data.augment.random_erasing must be a number >= 0 and <= 1, got 2"),
        ({"augment": {"randaugment": 31}}, "data.augment.randaugment must be a whole number >= 0 and <= 30, got 31"),
        ({"unlabeled_root": 5}, "data.unlabeled_root must be a folder, got 5"),
        ({"num_workers": -1}, "data.num_workers must be a whole number >= 0, got -1"),
        ({"verify": "no"}, "data.verify must be true or false, got 'no'"),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(UserError) as error:
        make(Path("/nowhere"), **values)
    assert str(error.value) == message


def test_what_is_left_out_is_told_with_counts(root, capsys):
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    for i in range(3):
        (dog / f"IMG_{i}.HEIX").write_bytes(b"")  # no decoder knows it
    (cat / "scan").write_bytes((cat / "0.jpg").read_bytes())
    (cat / "._0.jpg").write_text("Mac OS X")
    photo(cat / ".ipynb_checkpoints" / "0-checkpoint.png")
    photo(cat / "deep" / ".git" / "x.png")
    photo(root / "train" / "__MACOSX" / "cat" / "0.png")
    photo(cat / "old.jpg" / "a.png")  # a folder like any other
    (dog / "more").symlink_to(cat, target_is_directory=True)
    data = make(root)
    data.prepare_data()
    data.setup()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "left out" in line)
    assert line.startswith(f"{root / 'train'}: left out ")
    for part in (
        "3 × .heix file",
        "2 × .txt file",
        "1 × file without a suffix",
        "1 × hidden folder __MACOSX",
        "1 × linked folder",
    ):
        assert part in line
    assert data.classes == ["cat", "dog"] and sum(data.sizes.values()) == 21


def test_what_only_looks_like_a_picture_or_a_class_is_left_out(root, capsys):
    dog = root / "train" / "dog"
    (dog / "gone.jpg").symlink_to(root / "nowhere.jpg")
    os.mkfifo(dog / "pipe.png")  # reading it would wait for ever
    (dog / "clip.mpg").write_bytes(b"\0\0\1\xb3")  # PIL knows its name and cannot decode it
    (root / "train" / "loose.jpg").write_bytes((dog / "0.jpg").read_bytes())
    for name in ("lost+found", "System Volume Information"):
        (root / "train" / name).mkdir()
    data = make(root)
    data.prepare_data()
    out = capsys.readouterr().out
    for kind in (
        *("broken link", "pipe or socket", ".mpg file", "file outside of the class folders"),
        *("hidden folder lost+found", "hidden folder System Volume Information"),
    ):
        assert f"1 × {kind}" in out
    assert data.classes == ["cat", "dog"]


def test_a_folder_beside_the_splits_is_told_unless_it_is_used(root, capsys):
    for name in ("valid", "more", ".cache"):
        photo(root / name / "cat" / "0.jpg")
    make(root, unlabeled_root=root / "more").setup()
    assert f"{root}: left out valid; rename what is a split to train, val or test\n" in capsys.readouterr().out


def test_a_folder_that_cannot_be_read_is_told(root, capsys, monkeypatch):
    closed, scandir = root / "train" / "cat" / "private", os.scandir
    closed.mkdir()

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)  # for root, who runs many tests, no folder is closed
    make(root).setup()
    assert "1 × folder that cannot be read (Permission denied)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "split", "message"),
    [
        (1, {}, "emu has 1; add images or remove the class$"),
        (2, {}, "emu has 2; add images or remove the class, or train without validation .data.val_size=0.$"),
        (2, {"val_size": 0}, None),
    ],
)
def test_advice_for_a_class_of_few_images_is_what_helps(root, images, split, message):
    for i in range(images):
        photo(root / "train" / "emu" / f"{i}.jpg")
    data = make(root, **split)
    if message is None:
        data.setup()
        return
    with pytest.raises(UserError, match=message):
        data.setup()


def test_a_split_of_many_kinds_counts_the_rest(root, capsys):
    for suffix in "abcdefgh":
        (root / "train" / "cat" / f"x.q{suffix}").write_text("")
    make(root).setup()
    assert "1 others" in capsys.readouterr().out


def test_class_names_are_compared_as_they_are_seen(root):
    (root / "train" / "cat").rename(root / "train" / "cafe\u0301  latte ")
    for name in ("caf\u00e9 latte", "dog"):
        for split in ("val", "test"):
            for i in range(2):
                photo(root / split / name / f"{i}.png")
    data = make(root)
    data.setup()
    assert data.classes == ["caf\u00e9 latte", "dog"] and data.sizes == {"train": 20, "val": 4, "test": 4}


def test_copies_never_lie_in_two_splits(root, capsys):
    """Where the splits are ours, copies of what is held out are left out of the training."""
    folder = root / "train" / "cat"
    for path in sorted(folder.glob("*.jpg")):
        (folder / f"copy_{path.name}").write_bytes(path.read_bytes())
    data = make(root, test_size=0.3, val_size=0.3)
    data.setup()
    assert "× copy of one of them in train" in capsys.readouterr().out
    contents = [{p.read_bytes() for p, _ in data.splits[split].photos} for split in ("train", "val", "test")]
    assert all(not contents[i] & contents[j] for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_copy_in_another_class_is_told(root, capsys):
    (root / "train" / "dog" / "0.jpg").write_bytes((root / "train" / "cat" / "0.jpg").read_bytes())
    make(root).setup()
    assert "warning: 1 picture of train has a copy in another class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "count", "way"),
    [
        (40, 5, "data.val_size=0.38 would hold out 20"),
        (0, 2, "32 more in {root}/train and data.val_size=0.4 would do"),
    ],
)
def test_too_small_a_validation_split_is_told_with_the_number_that_would_do(root, capsys, more, count, way):
    for i in range(more):
        photo(root / "train" / "cat" / f"more_{i}.png")
    make(root).setup()
    out = capsys.readouterr().out
    assert f"warning: val has only {count} images" in out and out.rstrip().endswith(way.format(root=root))


def test_a_small_folder_val_is_told(root, capsys):
    for name in ("cat", "dog"):
        photo(root / "val" / name / "0.png")
    make(root).setup()
    assert f"put 20 or more into {root / 'val'}" in capsys.readouterr().out


def test_the_number_that_would_do_does(root, capsys):
    for i in range(40):
        photo(root / "train" / "cat" / f"more_{i}.png")
    data = make(root, val_size=0.38)
    data.setup()
    assert data.sizes["val"] >= 20 and "warning" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_that_breaks_during_training_is_one_line(root, workers):
    data = make(root, num_workers=workers)
    data.setup()
    data.splits["train"].photos.path(3).write_bytes(b"")
    with pytest.raises(UserError) as error:
        list(data.train_dataloader())
    assert str(error.value) == f"cannot read {data.splits['train'].photos.path(3)}: not an image"


CHANGES = [{"randaugment": 9}, {"trivialaugment": True}, {"random_erasing": 1.0}]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_further_augmentation_depends_on_seed_epoch_and_index_alone(root, change):
    plain, data = shown(make(root), 1), make(root, augment=change)
    wanted = shown(data, 1)
    again = shown(make(root, augment=change, batch_size=3, num_workers=1), 1)
    both = wanted.keys() & again.keys()
    assert len(both) >= 14 and all(torch.equal(wanted[i], again[i]) for i in both)
    assert sum(torch.equal(wanted[i], plain[i]) for i in plain) < len(plain) / 2
    assert any(not torch.equal(x, wanted[i]) for i, x in shown(data, 2).items())
    assert data.fingerprint() != make(root).fingerprint()
    evaluated = [next(iter(d.test_dataloader())).x for d in (data, make(root))]
    assert torch.equal(*evaluated)


def test_paths_of_many_photos_are_one_object(root):
    """A worker process would copy every page of a list of a million objects: their counters are written to."""
    photos = Photos([b"/somewhere/train/cat/%07d.jpg" % i for i in range(10_000)], [0] * 10_000)
    assert not any(isinstance(value, list | dict | tuple) for value in vars(photos).values())
    assert photos[9_999] == (Path("/somewhere/train/cat/0009999.jpg"), 0) and len(list(photos)) == 10_000
    assert photos.select([7, 5]).paths() == [photos.path(7), photos.path(5)]


@pytest.mark.parametrize(("count", "batch_size", "batches"), [(16, 64, [16]), (16, 15, [15]), (16, 5, [5, 5, 5])])
def test_small_sets_and_last_batches(root, count, batch_size, batches):
    """A last batch of one image is left out, as BatchNorm cannot train on it; a set smaller than a batch is one."""
    data = make(root, batch_size=batch_size)
    assert [len(batch.y) for batch in data.train_dataloader()] == batches
