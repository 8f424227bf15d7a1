"""The teacher cache: what is served is what the live teacher says about the very view the student sees."""

import itertools
import math
import multiprocessing
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kd_lightning.data import DigitsDataModule
from kd_lightning.models import create_model
from kd_lightning.teachers.cache.cached import LEAST, CachedTeacher
from kd_lightning.teachers.cache.storage import fingerprint
from kd_lightning.teachers.cache.table import LogitTable
from kd_lightning.teachers.live import LiveTeacher


class Pixels(nn.Module):
    """A teacher whose logits are its input's pixels: any wrong view shows."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0

    def forward(self, x):
        self.images += len(x)
        return x[:, 0].flatten(1)


def cached(data, folder=None, dtype=torch.float32, views=True):
    live = LiveTeacher(Pixels())
    if not views:
        data.epoch_views = lambda epoch: None
    return CachedTeacher(live, folder, data, dtype), live


class Wide(DigitsDataModule):
    """Digits of 64 classes, as many as they have pixels."""

    @property
    def classes(self) -> list[str]:
        return [str(i) for i in range(64)]


def digits(**values) -> Wide:
    data = Wide(**values)
    data.setup()
    return data


@pytest.mark.parametrize("views", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("where", ["memory", "file"])
def test_every_view_served_is_the_view_shown(tmp_path, where, views):
    data = digits(batch_size=100)
    teacher, live = cached(data, tmp_path if where == "file" else None, views=views)
    loader = data.train_dataloader()
    for epoch in range(30):
        loader.epoch = epoch
        teacher.start_epoch(epoch)
        for batch in loader:
            assert torch.equal(teacher(batch).logits, batch.x[:, 0].flatten(1))
    asked = sum(len(batch.y) for batch in loader) * 30
    missing, batches = asked - teacher.found, 30 * len(loader)
    assert teacher.asked == asked and missing <= live.model.images <= missing + LEAST * batches
    most = data.sizes["train"] * data.num_views
    assert teacher.asked - teacher.found <= most, "no view is missing twice"


def test_a_second_run_asks_the_teacher_nothing(tmp_path):
    data = digits()
    for run in range(2):
        teacher, live = cached(data, tmp_path)
        for batch in data.train_dataloader():
            assert torch.equal(teacher(batch).logits, batch.x[:, 0].flatten(1))
        assert (live.model.images == 0) == (run == 1)


def test_an_epoch_that_is_there_is_read_once(monkeypatch):
    """Then no step waits for the table in main memory."""
    data = digits()
    teacher, _ = cached(data)
    for _run in range(2):
        teacher.start_epoch(0)
        served = [teacher(batch).logits for batch in data.train_dataloader()]
    reads = []
    read = LogitTable.read
    monkeypatch.setattr(LogitTable, "read", lambda self, keys: reads.append(len(keys)) or read(self, keys))
    teacher.start_epoch(0)
    again = [teacher(batch).logits for batch in data.train_dataloader()]
    assert reads == [data.sizes["train"]] and all(torch.equal(a, b) for a, b in zip(served, again, strict=True))


def test_views_without_numbers_are_keyed_by_seed_and_epoch(tmp_path):
    data = digits(augment={"pad": 1, "flip": False, "cutout": 3})
    assert data.num_views is None
    for _run in range(2):
        teacher, _ = cached(data, tmp_path)
        loader = data.train_dataloader()
        for epoch in (0, 1):
            loader.epoch = epoch
            teacher.start_epoch(epoch)
            for batch in loader:
                assert torch.equal(teacher(batch).logits, batch.x[:, 0].flatten(1))
    assert teacher.found == teacher.asked


def test_a_table_too_large_for_a_gpu_is_read_where_it_is_filled(tmp_path, monkeypatch):
    """Photos have no numbered views; a later run with the same view seed asked for everything again."""
    monkeypatch.setattr("kd_lightning.teachers.cache.cached.MOST_BYTES", 0)
    data = digits(batch_size=100, augment={"pad": 1, "flip": False, "cutout": 3})
    batch = next(iter(data.train_dataloader()))
    elsewhere = batch._replace(y=batch.y.to("meta"))  # as on a GPU: anything but main memory
    for filled in (False, True):
        teacher, live = cached(data, tmp_path)
        teacher.start_epoch(0)
        if filled:
            teacher.look_up(batch)
            live.model.images = 0
            teacher.start_epoch(0)
        teacher(elsewhere)
        assert live.model.images == (0 if filled else 100)


@pytest.mark.parametrize("known", [0, 5, 13, 14, 15, 16])
def test_answers_do_not_depend_on_which_ones_were_known(tmp_path, known):
    """A run that shares its table, or goes on after a stop, ends with the same bits as one that does not."""
    data = digits(batch_size=16)
    batch = next(iter(data.train_dataloader()))
    torch.manual_seed(0)
    live = LiveTeacher(create_model("resnet8", data.num_classes, image_size=8))
    expected = CachedTeacher(live, None, data, torch.float32).look_up(batch).logits
    teacher = CachedTeacher(live, tmp_path, data, torch.float32)
    keys = batch.index * teacher._views + batch.view if teacher._views else batch.index
    teacher.table().write(keys[:known], expected[:known])
    assert torch.equal(teacher.look_up(batch).logits, expected)
    whole = CachedTeacher(live, tmp_path / "epoch", data, torch.float32)
    shown = data.upcoming(0)[: 1293 // 16 * 16 + known]  # so that so many are left for the last batch
    data.upcoming = lambda epoch: shown
    assert torch.equal(whole.whole_epoch(torch.device("cpu"))[batch.index], expected)


def test_half_precision_is_one_rounding_away_and_lossless_for_bf16():
    table, logits = LogitTable(None, 10, 7, torch.float16), 20 * torch.randn(10, 7)
    keys = torch.arange(10)
    table.write(keys, logits)
    stored, there = table.read(keys)
    assert there.all() and ((stored.float() - logits).abs() <= 2**-11 * logits.abs() + 1e-7).all()
    table.write(keys, logits.bfloat16())
    assert torch.equal(table.read(keys)[0].float(), logits.bfloat16().float())


def test_an_empty_or_torn_row_is_not_there(tmp_path):
    table = LogitTable(tmp_path / "t.bin", 4, 10, torch.float32)
    assert not table.read(torch.arange(4))[1].any()
    table.write(torch.arange(3), torch.randn(3, 10))
    raw = bytearray((tmp_path / "t.bin").read_bytes())
    width = len(raw) // 4
    raw[width : width + 8] = raw[2 * width : 2 * width + 8]  # another row's first half, as two writers might leave it
    (tmp_path / "t.bin").write_bytes(raw)
    again = LogitTable(tmp_path / "t.bin", 4, 10, torch.float32)
    assert again.read(torch.arange(4))[1].tolist() == [True, False, True, False]


def processes(work, *arguments) -> list[multiprocessing.Process]:
    """One started process for each of `arguments`, which `work` is given."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=work, args=args) for args in arguments]
    for process in started:
        process.start()
    return started


def _fill(path: Path, rank: int) -> None:
    table = LogitTable(path, 2000, 10, torch.float32)
    while True:
        for keys in torch.randperm(2000, generator=torch.Generator().manual_seed(rank)).split(50):
            table.write(keys, keys[:, None] * torch.ones(10))


def test_two_processes_fill_one_table_and_are_killed(tmp_path):
    """Whatever each was writing at that moment: a row is right, or not there."""
    path = tmp_path / "t.bin"
    writers = processes(_fill, (path, 0), (path, 1))
    rows = torch.arange(2000)
    while not path.exists() or not LogitTable(path, 2000, 10, torch.float32).read(rows)[1].float().mean() > 0.9:
        assert all(writer.is_alive() for writer in writers)
        time.sleep(0.1)
    for writer in writers:
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
    logits, there = LogitTable(path, 2000, 10, torch.float32).read(rows)
    assert there.float().mean() > 0.9 and torch.equal(logits[there], rows[there, None] * torch.ones(10))


def _train(folder: Path, rank: int, augment: dict) -> None:
    """A rank's share of three epochs, the second of which is interrupted and goes on in a new run."""
    data = digits(batch_size=100, augment=augment)
    device = torch.device("cpu")
    strategy = SimpleNamespace(root_device=device)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=2, strategy=strategy, overfit_batches=0)
    data.trainer.current_epoch, data.trainer.num_training_batches, data.trainer.max_steps = 0, math.inf, -1
    seen = []
    for epoch, batches, state in ((0, None, None), (1, 3, None), (1, None, {"epoch": 1, "batch": 3}), (2, None, None)):
        loader, (teacher, live) = data.train_dataloader(), cached(data, folder)
        loader.epoch = epoch
        if state:
            loader.load_state_dict(state)
        teacher.start_epoch(epoch)
        for batch in itertools.islice(loader, batches):
            assert torch.equal(teacher(batch).logits, batch.x[:, 0].flatten(1))
            seen.append(batch.index)
        assert live.model.images <= len(loader.order(0)), "each rank asks about what it shows"
    assert sum(map(len, seen)) == 3 * len(loader.order(0)), "resumed, no sample is left out or shown twice"


@pytest.mark.parametrize(
    "augment",
    [
        pytest.param({"pad": 1, "flip": True}, id="views"),
        pytest.param({"pad": 1, "cutout": 3}, id="epochs"),
    ],
)
@pytest.mark.slow
def test_two_ranks_and_a_resumed_epoch_are_served_what_they_show(tmp_path, augment):
    for rank in processes(_train, (tmp_path, 0, augment), (tmp_path, 1, augment)):
        rank.join()
        assert rank.exitcode == 0
    data = digits(augment=augment)
    for epoch in range(3):
        teacher, live = cached(data, tmp_path)
        loader = data.train_dataloader()
        loader.epoch = epoch
        teacher.start_epoch(epoch)
        for batch in loader:
            assert torch.equal(teacher(batch).logits, batch.x[:, 0].flatten(1))
        assert live.model.images == 0, "the answers of both are in the file"


def test_the_fingerprint_tells_weights_data_and_precision_apart():
    net, data = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), digits()
    first = fingerprint(LiveTeacher(net), data, "32-true")
    assert first == fingerprint(LiveTeacher(net), digits(seed=5, batch_size=7), "32-true"), "a sweep shares one table"
    assert first != fingerprint(LiveTeacher(net), data, "bf16-mixed")
    assert first != fingerprint(LiveTeacher(net), digits(split_seed=1), "32-true")
    with torch.no_grad():
        net[1].bias[0] += 1e-3
    assert first != fingerprint(LiveTeacher(net), data, "32-true")
