"""One batch out of the shards of all processes, for losses that compare samples with each other."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_batch(x: Tensor) -> Tensor:
    """Return the shards `[B_r, …]` of all ranks as `[Σ B_r, …]`, in rank order; `x` itself in a single process.

    The gradient of a shard is the sum of what all ranks found for it. If every rank computes the same loss of the whole
    batch, the average over ranks that DDP takes afterwards is therefore the gradient of one process on the whole batch.
    All ranks must call it together. Their shards may differ in length, as in the last batch of an epoch, and in their
    other dimensions, as maps of sentences `[B, D, L, 1]` do: then they are filled up with zeros to the largest.
    """
    if not _several_processes():
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


def broadcast(x: Tensor) -> Tensor:
    """Return the tensor of rank 0, of the same shape, on every rank; `x` itself in a single process."""
    if not _several_processes():
        return x
    x = x.clone(memory_format=torch.contiguous_format)
    dist.broadcast(x, src=0)
    return x


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        shapes = [torch.zeros(x.dim(), dtype=torch.int64, device=x.device) for _ in range(dist.get_world_size())]
        dist.all_gather(shapes, torch.tensor(x.shape, device=x.device))
        every = torch.stack(shapes).tolist()  # the device is waited for once
        ctx.shape, ctx.lengths = x.shape, [shape[0] for shape in every]
        padded = x.new_zeros([max(sizes) for sizes in zip(*every, strict=True)])  # a collective wants one shape
        padded[tuple(map(slice, x.shape))] = x
        shards = [torch.empty_like(padded) for _ in ctx.lengths]
        dist.all_gather(shards, padded)
        return torch.cat([shard[:n] for shard, n in zip(shards, ctx.lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)  # the sum is written into it
        dist.all_reduce(grad)
        return grad.split(ctx.lengths)[dist.get_rank()][tuple(map(slice, ctx.shape))]
