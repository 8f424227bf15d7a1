"""A training step never waits for the device: counted on CUDA tensors that need no GPU."""

import pytest
import torch

from kd_lightning.data import Augment, Normalize, ResidentImages
from kd_lightning.data.audio.augment import AudioAugment
from kd_lightning.data.audio.logmel import LogMel
from kd_lightning.data.audio.resident import ResidentRecordings
from kd_lightning.data.images import mixing, normalize
from kd_lightning.data.text.ragged import RaggedTokens
from tests.fake_cuda import fake_cuda

CUDA = torch.device("cuda", 0)
pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="needs PyTorch built for CUDA")


@pytest.fixture(autouse=True)
def no_fake_tensors_are_kept():
    for cached in (mixing._quantiles, normalize._affine):
        cached.cache_clear()
    yield
    for cached in (mixing._quantiles, normalize._affine):
        cached.cache_clear()


PRESETS = [
    {"pad": 4, "flip": True},
    {"cutout": 8},
    {"mixup": 0.2},
    {"cutmix": 1.0},
    {"pad": 4, "flip": True, "cutout": 8, "mixup": 0.2, "cutmix": 1.0},
]


def steady(split, waits):
    """Return the sixth batch of a split; `waits` has what the five after the first did."""
    batches = split.batches(torch.arange(100), 10, 0, 0, CUDA)
    assert next(batches).x.device == CUDA
    waits.names.clear()
    waits.on_cpu.clear()
    for _ in range(5):
        batch = next(batches)
    return batch


@pytest.mark.parametrize("where", ["auto", "stream"])
@pytest.mark.parametrize("values", PRESETS, ids=str)
def test_no_step_waits(values, where):
    with fake_cuda() as waits:
        images, labels = torch.zeros(100, 32, 32, 3, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64)
        split = ResidentImages(images, labels, Normalize((0.5,) * 3, (0.5,) * 3), Augment.parse(values), where)
        batch = steady(split, waits)
        assert batch.x.shape == (10, 3, 32, 32) and batch.y.device == batch.index.device == CUDA
        assert waits.names == []
        if where == "auto":
            assert waits.on_cpu == {}


def test_no_step_of_recordings_waits():
    logmel = LogMel(8000, 0.5)
    with fake_cuda() as waits:
        waves, labels = torch.zeros(100, logmel.samples, dtype=torch.int16), torch.zeros(100, dtype=torch.int64)
        augment = AudioAugment(views=8, shift=0.1, time_mask=0.1, band_mask=4)
        split = ResidentRecordings(waves, labels, logmel, augment)
        split.logmel.hann, split.logmel.filters = torch.zeros(logmel.size), torch.zeros(logmel.bands, 129)
        batch = steady(split, waits)
        assert batch.x.shape == (10, 1, 32, logmel.frames) and batch.y.device == batch.index.device == CUDA
        assert waits.names == [] and waits.on_cpu == {}


def test_the_counter_counts():
    with fake_cuda() as waits:
        x = torch.zeros(4, device=CUDA)
        x.sum()
        assert waits.names == []
        torch.ones(4).to(CUDA, non_blocking=True)
        assert waits.names == []
        torch.ones(4).to(CUDA)
        x.cpu()
        assert waits.names == ["_to_copy between devices"] * 2
        with pytest.raises(Exception, match="_local_scalar_dense"):
            float(x.sum())
        assert waits.names[-1] == "_local_scalar_dense"


def test_no_step_of_text_waits(monkeypatch):
    monkeypatch.setattr(RaggedTokens, "shapes", lambda *_: [16, 24, 16, 24])  # there is no content to take them from
    with fake_cuda() as waits:
        split = RaggedTokens([[2, 3, 4]] * 40, torch.zeros(40, dtype=torch.int64), 64)
        batches = split.batches(torch.arange(40), 10, 0, 0, CUDA)
        assert next(batches).x["ids"].device == CUDA
        waits.names.clear()
        waits.on_cpu.clear()
        for width in (24, 16, 24):
            batch = next(batches)
            assert batch.x["ids"].shape == batch.x["mask"].shape == (10, width)
        assert batch.y.device == batch.index.device == batch.view.device == CUDA
        assert waits.names == [] and waits.on_cpu == {}
