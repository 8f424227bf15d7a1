"""Where pixels lie changes no batch; what does not fit stays in main memory, and it is said."""

import pytest
import torch

from kd_lightning.data import DigitsDataModule
from kd_lightning.data.images.placement import Placement, free_memory, place
from kd_lightning.utils.checks import UserError

GPU = torch.device("cuda", 0)


def batches(where: str):
    data = DigitsDataModule(device=where, augment={"pad": 1, "cutout": 3, "mixup": 0.3})
    data.setup()
    return list(data.train_dataloader())


@pytest.mark.parametrize("where", ["cpu", "stream"])
def test_the_same_batches_from_everywhere(where):
    for a, b in zip(batches("auto"), batches(where), strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and torch.equal(a.index, b.index)


def test_what_does_not_fit_is_streamed(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4_000_000_000, 8_000_000_000))
    assert place("auto", 900_000_000, GPU) == GPU and capsys.readouterr().out == ""
    assert place("auto", 1_100_000_000, GPU).type == "cpu" and "stay in main memory" in capsys.readouterr().out
    assert place("stream", 1, GPU).type == place("cpu", 1, GPU).type == "cpu"
    with pytest.raises(UserError, match=r"data\.device=cuda: 1\.1 GB of pixels"):
        place("cuda", 1_100_000_000, GPU)


def test_the_place_is_decided_once(monkeypatch):
    """Memory that networks and activations took since is no reason to move, or to stop, in the middle of a run."""
    free = iter([4_000_000_000, 0])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(free), 8_000_000_000))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for wanted in ("auto", "cuda"):
        free = iter([4_000_000_000, 0])
        placement = Placement(wanted, 900_000_000)
        assert placement.home(GPU) == placement.home(GPU) == GPU


def test_all_splits_share_one_decision():
    data = DigitsDataModule(augment={"pad": 2})
    data.setup()
    sources = data.splits.values()
    assert len({id(source.placement) for source in sources}) == 1
    assert data.splits["val"].placement.size == sum(source.padded.nbytes for source in sources)


def test_memory_that_the_allocator_keeps_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000_000_000, 8_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5_000_000_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2_000_000_000)
    assert free_memory(GPU) == 4_000_000_000


def test_mistakes():
    with pytest.raises(UserError, match=r"data\.device must be one of auto, cpu, cuda, stream, got 'gpu'"):
        DigitsDataModule(device="gpu")
    with pytest.raises(UserError, match=r"the training runs on cpu"):
        place("cuda", 1, torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one")
def test_cuda_without_cuda():
    with pytest.raises(UserError, match=r"data\.device=cuda: no such device was found"):
        DigitsDataModule(device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("where", ["cuda", "stream", "cpu"])
def test_batches_of_a_gpu_equal_those_of_the_cpu(where):
    def some(device: torch.device, where: str):
        data = DigitsDataModule(device=where, augment={"pad": 1, "cutout": 3, "mixup": 0.3})
        data.setup()
        return data.splits["train"].batches(torch.arange(300), 100, 0, 0, device)

    for a, b in zip(some(GPU, where), some(torch.device("cpu"), "auto"), strict=True):
        torch.testing.assert_close(a.x.cpu(), b.x)
        assert torch.equal(a.y.cpu(), b.y) and torch.equal(a.index.cpu(), b.index)
