"""Maps `[B, C, H, W]` at another height and width, by operations that CUDA can also run deterministically."""

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


def pool(f: Tensor, size: Size) -> Tensor:
    """Return the map averaged to `size`, as `adaptive_avg_pool2d` does."""
    if size == (1, 1):
        return f.mean((2, 3), keepdim=True)
    if f.shape[2] % size[0] == 0 and f.shape[3] % size[1] == 0:
        kernel = (f.shape[2] // size[0], f.shape[3] // size[1])
        return F.avg_pool2d(f, kernel)  # the same mean; CUDA has no deterministic backward pass of the adaptive one
    if not _must_be_deterministic(f):
        return F.adaptive_avg_pool2d(f, size)
    rows, columns = (_averages(f, f.shape[2 + d], size[d]) for d in (0, 1))
    return rows @ f @ columns.T


def enlarge(f: Tensor, size: Size) -> Tensor:
    """Return the map with each pixel repeated to fill `size`, as nearest-neighbour `interpolate` does."""
    b, c, h, w = f.shape
    if size[0] % h == 0 and size[1] % w == 0:
        blocks = f[:, :, :, None, :, None].expand(b, c, h, size[0] // h, w, size[1] // w)
        layout = torch.contiguous_format if f.is_contiguous() else torch.channels_last
        return blocks.reshape(b, c, *size).contiguous(memory_format=layout)
    if not _must_be_deterministic(f):
        return F.interpolate(f, size)
    rows, columns = (torch.arange(n, device=f.device) * old // n for n, old in zip(size, (h, w), strict=True))
    return f[:, :, rows[:, None], columns]


def resize(f: Tensor, like: Tensor) -> Tensor:
    """Return the map at the height and width of another: averaged if larger, its pixels repeated if smaller."""
    size = (like.shape[2], like.shape[3])
    if tuple(f.shape[2:]) == size:
        return f
    return pool(f, size) if f.shape[2] >= size[0] else enlarge(f, size)


def _must_be_deterministic(f: Tensor) -> bool:
    return f.is_cuda and torch.are_deterministic_algorithms_enabled()


def _averages(f: Tensor, old: int, new: int) -> Tensor:
    """Return the matrix `[new, old]` that averages as `adaptive_avg_pool2d` does, windows that overlap included."""
    i, j = torch.arange(new, device=f.device)[:, None], torch.arange(old, device=f.device)
    inside = ((i * old).div(new, rounding_mode="floor") <= j) & (j < ((i + 1) * old + new - 1) // new)
    return (inside / inside.sum(1, keepdim=True)).to(f.dtype)
