"""One batch out of the shards of all processes, for losses that compare samples with each other."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_batch(x: Tensor) -> Tensor:
    """Shards `[B, …]` of all ranks as `[ranks·B, …]`, in rank order; `x` itself where no process group is running.

    The gradient of a shard is the sum of what all ranks found for it. If every rank computes the same loss of the whole
    batch, the average over ranks that DDP takes afterwards is therefore the gradient of one process on the whole batch.
    All ranks must call it together, with shards of one shape.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        shards = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(shards, x.contiguous())
        return torch.cat(shards)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)  # the sum is written into it
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]
