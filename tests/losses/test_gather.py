"""Two processes with half a batch each learn what one learns from the whole."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from kd_lightning.losses import functional as L
from kd_lightning.losses.gather import gather_batch


def inputs() -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(5, 4).double(), torch.randn(8, 5).double(), torch.randn(8, 4).double()


def relational(s: Tensor, t: Tensor) -> Tensor:
    return L.similarity(s, t) + L.dist(s, t, 1, 1, 2) + L.rkd_angle(s, t) + L.correlation(s, t)


def half(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    student, x, t = inputs()
    mine = slice(4 * rank, 4 * rank + 4)
    loss = relational(gather_batch(student(x[mine])), gather_batch(t[mine]))
    loss.backward()
    for p in student.parameters():  # as DDP does
        dist.all_reduce(p.grad)
        p.grad /= 2
    torch.save((loss.detach(), [p.grad for p in student.parameters()]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(half, args=(str(tmp_path),), nprocs=2)
    student, x, t = inputs()
    loss = relational(student(x), t)
    loss.backward()
    for rank in range(2):
        sharded, grads = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(sharded, loss.detach())
        torch.testing.assert_close(grads, [p.grad for p in student.parameters()])


def test_is_the_identity_in_one_process() -> None:
    x = torch.ones(2, 3)
    assert gather_batch(x) is x
