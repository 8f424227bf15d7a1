"""Random numbers of a whole epoch, drawn at once, give the pixels that numbers drawn batch by batch gave before."""

import pytest
import torch
from scipy.stats import beta

from kd_lightning.data import Augment, Normalize, ResidentImages
from kd_lightning.data.hashing import MASK, random_bits
from kd_lightning.types import Batch

NORMALIZE = Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
SIZE, COUNT = 12, 150


def hashed(*keys: int | torch.Tensor) -> torch.Tensor:
    """The hash of tensors only, as it was first written."""

    def mix(x: torch.Tensor) -> torch.Tensor:
        x = (x ^ (x >> 16)) * 0x21F0AAAD & MASK
        x = (x ^ (x >> 15)) * 0x735A2D97 & MASK
        return x ^ (x >> 15)

    state = torch.zeros((), dtype=torch.int64)
    for key in keys:
        state = mix(mix(state + 0x3C6EF372 & MASK) ^ (torch.as_tensor(key, dtype=torch.int64) & MASK))
    return state


def slow_batch(split: ResidentImages, seed: int, epoch: int, index: torch.Tensor) -> Batch:
    """One batch whose numbers are drawn for it alone, as the first version of the project did."""
    augment, mixing, pixel = split.augment, split.augment.mixing, torch.arange(SIZE)

    def covered(salt: int, side: torch.Tensor) -> torch.Tensor:
        start = hashed(seed, epoch, salt, index) % SIZE - side // 2
        return (pixel >= start[:, None]) & (pixel < (start + side)[:, None])

    def share(a: float, chance: torch.Tensor) -> torch.Tensor:
        if not a:
            return torch.ones(len(chance))
        part = torch.from_numpy(beta.ppf((torch.arange(4096).numpy() + 0.5) / 4096, a, a)).float()
        return torch.maximum(part, 1 - part)[chance]

    x = split.render(index, hashed(seed, epoch, 1, index) % augment.crop_views)
    if mixing:
        other = hashed(seed, epoch, 11, index) % COUNT
        seen = hashed(seed, epoch, 16, index) % augment.crop_views
        chance = hashed(seed, epoch, 12, index) % 4096
        both = mixing.mixup > 0 and mixing.cutmix > 0
        cut = hashed(seed, epoch, 15, index) % 2 == 1 if both else torch.tensor([mixing.cutmix > 0] * len(index))
        kept = torch.where(cut, share(mixing.cutmix, chance), share(mixing.mixup, chance))
        side = (SIZE * (1 - kept).sqrt()).long()
        square = covered(13, side)[:, :, None] & covered(14, side)[:, None, :]
        keep = torch.where(cut[:, None, None], (~square).float(), kept[:, None, None].expand(-1, SIZE, SIZE))[:, None]
        x = torch.lerp(split.render(other, seen), x, keep)
    if augment.cutout:
        side = torch.full_like(index, augment.cutout)
        x = x.masked_fill((covered(2, side)[:, :, None] & covered(3, side)[:, None, :])[:, None], 0.0)
    return Batch(x, split.labels[index], index)


@pytest.mark.parametrize(
    "values",
    [
        {"pad": 2, "flip": True},
        {"cutout": 5},
        {"pad": 2, "mixup": 0.4},
        {"cutmix": 1.0},
        {"flip": True, "cutout": 4, "mixup": 0.2, "cutmix": 1.0},
    ],
    ids=str,
)
def test_an_epoch_at_once_equals_batch_by_batch(values):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    split = ResidentImages(images, torch.arange(COUNT) % 7, NORMALIZE, Augment.parse(values))
    order = torch.randperm(COUNT, generator=generator)
    for seed, epoch in ((0, 0), (3, 5)):
        for batch in split.batches(order, 40, seed, epoch, torch.device("cpu")):
            slow = slow_batch(split, seed, epoch, batch.index)
            assert torch.equal(batch.x, slow.x) and torch.equal(batch.y, slow.y)


def test_keys_may_be_numbers_or_tensors():
    index = torch.arange(50)
    for keys in ((0, 0, 1, index), (2**32 - 1, 7, index), (5, index, 3)):
        assert torch.equal(random_bits(*keys), hashed(*keys))
    assert random_bits(3, 4) == int(hashed(3, 4)) and isinstance(random_bits(3, 4), int)
