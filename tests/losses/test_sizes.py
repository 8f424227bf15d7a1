"""Maps at another size: the values of torch's own operations, some of which CUDA cannot run deterministically."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.functional import sizes

SIZES = [((8, 8), (4, 4)), ((8, 8), (1, 1)), ((6, 4), (2, 2)), ((7, 7), (4, 4)), ((14, 9), (4, 2)), ((5, 5), (5, 3))]


def maps(h: int, w: int) -> tuple[Tensor, Tensor]:
    f = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return f.clone().requires_grad_(), f.clone().requires_grad_()


def assert_same(got: Tensor, expected: Tensor, f: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(got, expected)
    weight = torch.randn_like(got)
    (mine,), (theirs,) = torch.autograd.grad(got, f, weight), torch.autograd.grad(expected, other, weight)
    torch.testing.assert_close(mine, theirs)


@pytest.fixture(params=[False, True], ids=["usual", "deterministic"])
def deterministic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """As on CUDA under `trainer.deterministic=true`: neither of torch's operations is called."""
    if request.param:
        monkeypatch.setattr(sizes, "_must_be_deterministic", lambda f: True)
        for name in ("adaptive_avg_pool2d", "interpolate"):
            monkeypatch.setattr(F, name, None)
    return request.param


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(("large", "small"), SIZES)
def test_pool_is_the_adaptive_mean(large: tuple[int, int], small: tuple[int, int]) -> None:
    f, other = maps(*large)
    assert_same(sizes.pool(f, small), torch.ops.aten._adaptive_avg_pool2d(other, small), f, other)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(("large", "small"), SIZES)
def test_enlarge_is_the_nearest_pixel(large: tuple[int, int], small: tuple[int, int]) -> None:
    f, other = maps(*small)
    assert_same(sizes.enlarge(f, large), torch.ops.aten.upsample_nearest2d(other, large), f, other)


def test_enlarge_keeps_the_layout() -> None:
    f = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert sizes.enlarge(f, (8, 8)).is_contiguous(memory_format=torch.channels_last)
