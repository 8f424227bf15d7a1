"""The data sets as the rest of the project meets them: attributes, mistakes, configuration."""

import os
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchvision import datasets

from kd_lightning.data import CIFAR10DataModule, CIFAR100DataModule, DigitsDataModule
from kd_lightning.utils.checks import UserError

CONF = Path(__file__).parents[2] / "conf" / "data"
real_cifar = pytest.mark.skipif("KD_DATA" not in os.environ, reason="KD_DATA names no folder with CIFAR-10")


def test_digits():
    data = DigitsDataModule(batch_size=100)
    data.prepare_data()
    assert (data.name, data.num_classes, data.image_size, data.num_views) == ("digits", 10, 8, 9)
    train, val, test = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert (len(train), len(val), len(test)) == (13, 1, 2)
    batch = next(iter(train))
    assert batch.x.shape == (100, 3, 8, 8) and batch.x.dtype == torch.float32
    assert batch.x.is_contiguous(memory_format=torch.channels_last)
    assert batch.y.dtype == batch.index.dtype == batch.view.dtype == torch.int64
    assert 0 <= int(batch.view.min()) < int(batch.view.max()) < 9
    x = torch.cat([b.x for b in (*val, *test)])
    assert abs(float(x.mean())) < 0.05 and abs(float(x.std()) - 1) < 0.05
    assert next(iter(test)).view.unique().tolist() == [0]


def test_rendered_view_is_what_training_shows():
    data = DigitsDataModule()
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(data.splits["train"].render(batch.index, batch.view), batch.x)


def test_nothing_held_out_and_few_to_train():
    data = DigitsDataModule(val_size=0, train_size=50)
    assert data.val_dataloader() == []
    (batch,) = data.train_dataloader()
    assert torch.bincount(batch.y).tolist() == [5] * 10


def test_a_view_seed_fixes_the_views_and_not_the_order():
    a, b = DigitsDataModule(seed=1, view_seed=7), DigitsDataModule(seed=2, view_seed=7)
    own = DigitsDataModule(seed=1)
    own.setup()
    first, second = next(iter(a.train_dataloader())), next(iter(b.train_dataloader()))
    assert torch.equal(a.epoch_views(3), b.epoch_views(3))
    assert not torch.equal(first.index, second.index)
    for data, batch in ((a, first), (b, second)):
        assert torch.equal(batch.view, data.epoch_views(0)[batch.index])
    assert not torch.equal(a.epoch_views(0), own.epoch_views(0))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "digits"])
def test_configuration_equals_the_defaults(name):
    config = OmegaConf.merge({"seed": 3}, {"data": OmegaConf.load(CONF / f"{name}.yaml")})
    data = instantiate(config.data)
    assert data.name == name and data.seed == 3
    assert data.fingerprint() == type(data)().fingerprint()
    assert data.eval_batch_size == 256


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be a whole number >= 1, got 0"),
        ({"batch_size": "many"}, "data.batch_size must be a whole number >= 1, got 'many'"),
        ({"eval_batch_size": 2.5}, "data.eval_batch_size must be a whole number >= 1, got 2.5"),
        ({"val_size": 50_000}, "data.val_size must be a whole number >= 0 and <= 49990, got 50000"),
        ({"val_size": 5}, "data.val_size must be 0 or at least one image per class (10), got 5"),
        ({"train_size": 45_001}, "data.train_size must be a whole number >= 10 and <= 45000, got 45001"),
        ({"seed": -1}, "data.seed must be a whole number >= 0 and <= 4294967295, got -1"),
        ({"view_seed": 1.5}, "data.view_seed must be a whole number >= 0 and <= 4294967295, got 1.5"),
        ({"split_seed": None}, "data.split_seed must be a whole number >= 0 and <= 4294967295, got None"),
        ({"root": None}, "data.root must be a folder, got None"),
        ({"augment": {"pad": 4.0}}, "data.augment.pad must be a whole number >= 0, got 4.0"),
    ],
)
def test_mistakes_are_told_before_the_disk_is_touched(values, message):
    with pytest.raises(UserError) as error:
        CIFAR10DataModule(**{"root": "/nowhere", **values})
    assert str(error.value) == message


def test_too_few_images_for_the_devices():
    data = DigitsDataModule(val_size=0, train_size=10)
    data.setup()
    data.splits["train"] = torch.utils.data.Subset(data.splits["train"], [0])
    with pytest.raises(UserError, match="digits has only 1 training samples: too few for 1 process"):
        data.train_dataloader()


def test_no_network_is_told_with_the_way_out(tmp_path, monkeypatch):
    def unreachable(*_: object, timeout: float, **__: object) -> None:
        assert timeout <= 5
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    root = tmp_path / "here"
    with pytest.raises(UserError) as error:
        CIFAR100DataModule(root).prepare_data()
    for part in (str(root), datasets.CIFAR100.url, str(root / "cifar-100-python.tar.gz"), "experiment=quickstart"):
        assert part in str(error.value)
    assert not root.exists()  # nothing is left behind
    with pytest.raises(UserError, match="CIFAR10 is missing or damaged"):
        CIFAR10DataModule(root).setup()


def test_class_names_need_no_disk():
    assert len(CIFAR100DataModule("/nowhere").classes) == 100
    assert CIFAR100DataModule("/nowhere").classes == sorted(CIFAR100DataModule("/nowhere").classes)
    assert CIFAR10DataModule("/nowhere").classes[3] == "cat"


@real_cifar
def test_real_cifar10():
    root = os.environ["KD_DATA"]
    data = CIFAR10DataModule(root)
    data.prepare_data()
    data.setup()
    assert data.sizes == {"train": 45_000, "val": 5000, "test": 10_000}
    assert torch.bincount(data.splits["val"].labels).tolist() == [500] * 10
    original = datasets.CIFAR10(root, train=False)
    assert data.classes == original.classes
    pixels = torch.cat([data.splits["test"].pixels(b.index, b.view) for b in data.test_dataloader()])
    np.testing.assert_array_equal(pixels.numpy(), original.data)
    assert torch.equal(torch.cat([b.y for b in data.test_dataloader()]), torch.tensor(original.targets))
    everything = sorted(p.tobytes() for s in ("train", "val") for p in centers(data.splits[s]))
    assert everything == sorted(p.tobytes() for p in datasets.CIFAR10(root, train=True).data)


def centers(split) -> np.ndarray:
    pad = split.augment.pad
    return split.padded[:, pad : pad + 32, pad : pad + 32].numpy()
