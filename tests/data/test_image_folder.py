"""A folder of photos: what it yields, and one clear message for each thing that is wrong with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from kd_lightning.data import ImageFolderDataModule
from kd_lightning.data.images.folder import open_rgb
from kd_lightning.utils.checks import UserError

CONF = Path(__file__).parents[2] / "conf" / "data"


def photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
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
    assert "held out 2 of 20 training images as test" in capsys.readouterr().out
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
    image = open_rgb(path)
    image = image.resize((int(32 * image.width / image.height), 32), Image.Resampling.BILINEAR)
    left = round((image.width - 28) / 2)
    wanted = torch.from_numpy(np.array(image.crop((left, 2, left + 28, 30))))
    torch.testing.assert_close(batch.x[:1], data.normalize(wanted[None]))


def test_camera_orientation_and_16_bit(tmp_path):
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90°
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_rgb(tmp_path / "a.jpg").size == (10, 20)
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "b.png")
    assert open_rgb(tmp_path / "b.png").getpixel((0, 0)) == (156,) * 3


def test_configuration(root):
    config = OmegaConf.merge({"seed": 3}, {"data": OmegaConf.load(CONF / "image_folder.yaml")})
    config.data.root = str(root)
    data = instantiate(config.data)
    assert data.fingerprint() == ImageFolderDataModule(root).fingerprint()


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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "train").rename(root / "training"), "must have a folder train .*did you mean 'training'"),
        (lambda root: (root / "train").rename(root / "photos"), "must have a folder train .*it has photos"),
        (empty_class, "class folder .*train/dog has no images"),
        (truncated, r"cannot read .*train/dog/0.jpg \(.*truncated"),
        (lambda root: (root / "train" / "cat" / "x.png").write_text("hello"), r"cannot read .*x.png \(not an image\)"),
        (one_class, "one folder per class, at least 2, got 1: .'cat'"),
        (
            lambda root: photo(root / "val" / "cat" / "0.jpg"),
            "val must have the same classes as train, but it lacks dog",
        ),
        (lambda root: [photo(root / "test" / c / "0.jpg") for c in ("cat", "dog", "cow")], "test must .* has also cow"),
        (tiny_class, "too few images to hold out a test split: class emu .* would have none left"),
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
        ({"augment": {"pad": 4}}, "unknown key data.augment.pad; it has min_area, flip"),
        ({"num_workers": -1}, "data.num_workers must be a whole number >= 0, got -1"),
        ({"verify": "no"}, "data.verify must be true or false, got 'no'"),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(UserError) as error:
        make(Path("/nowhere"), **values)
    assert str(error.value) == message
