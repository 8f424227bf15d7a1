"""Order, ranks and resumption; the trainer is real where Lightning decides what is called."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from kd_lightning.data import DigitsDataModule, Loader
from kd_lightning.data.loader import eval_order, train_order

pytestmark = [  # of Lightning with newer versions of torch, and about the folder that the tests write to twice
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists"),
]


@pytest.mark.parametrize("n", [100, 101, 97, 64, 127])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_each_epoch(n, world_size):
    whole = train_order(n, 8, seed=1, epoch=2)
    ranks = [train_order(n, 8, 1, 2, r, world_size) for r in range(world_size)]
    seen = torch.cat(ranks)
    rest = n % (8 * world_size)
    dropped = rest if rest // world_size < 2 else 0
    assert len(seen) == len(seen.unique()) == n - dropped
    batches = [order.split(8) for order in ranks]
    assert len({len(b) for b in batches}) == 1
    assert min(len(part) for b in batches for part in b) >= 2
    for k in range(len(batches[0])):  # global batch k is a piece of the one permutation
        together = torch.cat([b[k] for b in batches])
        piece = train_order(n, 1, 1, 2)[k * 8 * world_size : (k + 1) * 8 * world_size]
        assert set(together.tolist()) == set(piece.tolist())
    assert len(whole) >= n - 1


def test_epochs_and_seeds_differ_in_order():
    orders = [train_order(50, 8, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(orders) for b in orders[:i])


@pytest.mark.parametrize(("n", "world_size"), [(10, 1), (10, 3), (2, 4)])
def test_evaluation_sees_each_sample_once(n, world_size):
    seen = torch.cat([eval_order(n, r, world_size) for r in range(world_size)])
    assert sorted(seen.tolist()) == list(range(n))


def views(loader: Loader) -> dict[int, int]:
    return {int(i): int(v) for batch in loader for i, v in zip(batch.index, batch.view, strict=True)}


def test_same_view_for_any_batch_size_and_rank():
    data = DigitsDataModule(batch_size=32, seed=7)
    whole = data.loader("train")
    whole.epoch = 3
    wanted = views(whole)
    assert len(wanted) == 1293
    for batch_size, world_size in ((50, 1), (16, 2)):
        got: dict[int, int] = {}
        for rank in range(world_size):
            cpu = SimpleNamespace(root_device=torch.device("cpu"))
            trainer = SimpleNamespace(
                global_rank=rank, world_size=world_size, current_epoch=3, strategy=cpu, overfit_batches=0
            )
            part = views(Loader(data.splits["train"], batch_size, shuffle=True, seed=7, trainer=trainer))
            assert not part.keys() & got.keys()
            got |= part
        assert got.items() <= wanted.items()
        assert len(got) >= 1293 - batch_size


def test_state_continues_the_same_epoch_only():
    data = DigitsDataModule()
    loader = data.train_dataloader()
    loader.epoch = 4
    batches = [b.index for b in loader]
    assert len(batches) == len(loader)
    interrupted = data.train_dataloader()
    interrupted.epoch = 4
    iterator = iter(interrupted)
    next(iterator), next(iterator)
    for epoch, wanted in ((4, batches[2:]), (5, None)):
        resumed = data.train_dataloader()
        resumed.epoch = epoch
        resumed.load_state_dict(interrupted.state_dict())
        got = [b.index for b in resumed]
        if wanted is None:
            assert len(got) == len(batches)
        else:
            assert len(got) == len(wanted) and all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
        assert len(list(resumed)) == len(batches)  # resumes once


class Recorder(LightningModule):
    """A tiny classifier that notes what it was shown: (epoch, indices, views)."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(192, 10)
        self.seen: list[tuple[int, list[int], list[int]]] = []
        self.stop_at = stop_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.stop_at:
            raise InterruptedError
        self.seen.append((self.current_epoch, batch.index.tolist(), batch.view.tolist()))
        return torch.nn.functional.cross_entropy(self.layer(batch.x.flatten(1)), batch.y)

    def validation_step(self, batch, batch_idx):
        assert batch.view.unique().tolist() == [0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(tmp_path, model: Recorder, checkpoint: ModelCheckpoint | None = None, ckpt: str | None = None, **more):
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        callbacks=[checkpoint] if checkpoint else [],
        enable_checkpointing=checkpoint is not None,
        **more,
    )
    trainer.fit(model, datamodule=DigitsDataModule(batch_size=256, seed=1), ckpt_path=ckpt, weights_only=False)
    return model.seen


STEPS = 6  # batches of 256 in 1,293 images


@pytest.mark.parametrize(
    ("when", "kept"),
    [
        ({"every_n_train_steps": 2}, 2),  # in the middle of the first epoch
        ({"every_n_train_steps": 5}, 10),  # in the middle of the second
        ({"every_n_train_steps": STEPS}, STEPS),  # after the last batch, before the epoch is over
        ({"every_n_epochs": 1}, STEPS),  # after validation
        ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, STEPS),
        ({"every_n_epochs": 2}, 2 * STEPS),
    ],
)
def test_resumed_run_sees_what_an_uninterrupted_one_sees(tmp_path, when, kept):
    whole = fit(tmp_path, Recorder())
    assert [epoch for epoch, *_ in whole] == [0] * STEPS + [1] * STEPS + [2] * STEPS
    with pytest.raises(InterruptedError):
        fit(tmp_path, Recorder(stop_at=kept + 1), ModelCheckpoint(tmp_path, filename="last", **when))
    resumed = fit(tmp_path, Recorder(), ModelCheckpoint(tmp_path, filename="more", **when), str(tmp_path / "last.ckpt"))
    assert resumed == whole[kept:]


def test_resume_after_validation_in_the_middle_of_an_epoch(tmp_path):
    whole = fit(tmp_path, Recorder())
    checkpoints = [ModelCheckpoint(tmp_path, filename=name, save_on_train_epoch_end=False) for name in ("last", "more")]
    with pytest.raises(InterruptedError):
        fit(tmp_path, Recorder(stop_at=10), checkpoints[0], val_check_interval=0.5)
    resumed = fit(tmp_path, Recorder(), checkpoints[1], str(tmp_path / "last.ckpt"), val_check_interval=0.5)
    assert resumed == whole[9:]
