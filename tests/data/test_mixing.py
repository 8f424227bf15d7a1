"""Mixup and cutmix: pure functions of (seed, epoch, index), with labels in the shares of what is seen."""

import pytest
import torch

from kd_lightning.data import DigitsDataModule
from kd_lightning.data.images.mixing import Mixing
from kd_lightning.losses.ce import task_loss
from kd_lightning.types import Batch, Mixed
from kd_lightning.utils.checks import UserError

INDEX = torch.arange(4000)
BOTH = [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}]


def digits(batch_size: int = 100, **augment: float) -> DigitsDataModule:
    data = DigitsDataModule(augment={"pad": 1, "flip": False, **augment}, batch_size=batch_size)
    data.setup()
    return data


def whole_epoch(data: DigitsDataModule, epoch: int = 3) -> dict[int, tuple[torch.Tensor, int, int, float]]:
    loader = data.train_dataloader()
    loader.epoch = epoch
    seen = {}
    for b in loader:
        assert b.mixed is not None and b.view is None
        for i, x, y, other, share in zip(b.index.tolist(), b.x, b.y, b.mixed.y, b.mixed.share, strict=True):
            seen[i] = (x, int(y), int(other), float(share))
    return seen


@pytest.mark.parametrize("values", BOTH, ids=str)
def test_the_same_picture_in_any_batch(values):
    small, large = whole_epoch(digits(7, **values)), whole_epoch(digits(500, **values))
    for i in set(small) & set(large):
        assert torch.equal(small[i][0], large[i][0]) and small[i][1:] == large[i][1:]
    other_epoch = whole_epoch(digits(500, **values), epoch=4)
    assert sum(torch.equal(large[i][0], other_epoch[i][0]) for i in large) < len(large) / 4


def test_the_share_is_what_is_seen():
    """Of black and white images, mixed, the mean brightness tells the share; it is the larger part."""
    for mixing in (Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(0.4, 1.0)):
        keep = mixing.draw(0, 1, INDEX, 32).weights(32)
        share = keep.mean((1, 2, 3))
        assert keep.shape == (4000, 1, 32, 32) and float(keep.min()) >= 0 and float(keep.max()) <= 1
        assert float(share.min()) >= 0.5 and share.std() > 0.05
    squares = Mixing(cutmix=1.0).draw(0, 1, INDEX, 32).weights(32)
    assert set(squares.unique().tolist()) == {0.0, 1.0}


def test_shares_follow_the_beta_distribution():
    """Of Beta(1, 1), which is uniform, the larger part is uniform in [1/2, 1]: mean 3/4, standard deviation 1/√48."""
    share = Mixing(mixup=1.0).draw(0, 0, INDEX, 1).weights(1).flatten()
    assert float(share.mean()) == pytest.approx(0.75, abs=0.01) and float(share.std()) == pytest.approx(0.144, abs=0.01)
    mostly_whole = Mixing(mixup=0.1).draw(0, 0, INDEX, 1).weights(1).flatten()
    assert float((mostly_whole > 0.99).float().mean()) > 0.5


def test_partners_come_from_the_whole_split():
    other, view = Mixing(1.0).partner(0, 0, INDEX, 100, 9)
    assert set(other.tolist()) == set(range(100)) and set(view.tolist()) == set(range(9))


def test_cross_entropy_is_shared_between_the_labels():
    logits, y, other = torch.randn(5, 10), torch.arange(5), torch.arange(5, 10)
    for share in (1.0, 0.7):
        batch = Batch(None, y, y, mixed=Mixed(other, torch.full((5,), share), other))
        soft = share * torch.eye(10)[y] + (1 - share) * torch.eye(10)[other]
        torch.testing.assert_close(task_loss(logits, batch), torch.nn.functional.cross_entropy(logits, soft))
    assert torch.equal(task_loss(logits, Batch(None, y, y)), torch.nn.functional.cross_entropy(logits, y))


def test_off_changes_nothing_and_is_no_other_data():
    assert digits(mixup=0.0, cutmix=0).fingerprint() == digits().fingerprint() != digits(mixup=0.2).fingerprint()
    assert next(iter(digits().train_dataloader())).mixed is None
    assert next(iter(digits(mixup=1.0).val_dataloader())).mixed is None


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_mistakes(key):
    with pytest.raises(UserError, match=rf"data\.augment\.{key} must be a number >= 0, got -1"):
        digits(**{key: -1})
