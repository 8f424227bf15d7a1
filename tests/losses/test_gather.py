"""Two processes with a part of the batch each learn what one learns from the whole."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from kd_lightning.losses import functional as L
from kd_lightning.losses.gather import gather_batch
from kd_lightning.utils.quiet import quiet
from tests.losses.learner import Learner, digits

RELATIONAL = ["sp", "rkd", "pkt", "cc", "dist", "mlld", "crd"]
WHOLE = slice(0, 8)


def formulas(part: slice) -> tuple[Tensor, list[Tensor]]:
    """Four losses of relations and their gradients, in float64; the parts may differ in length."""
    torch.manual_seed(0)
    student, x, t = nn.Linear(5, 4).double(), torch.randn(8, 5).double(), torch.randn(8, 4).double()
    s, t = gather_batch(student(x[part])), gather_batch(t[part])
    loss = L.similarity(s, t) + L.dist(s, t, 1, 1, 2) + L.rkd_angle(s, t) + L.correlation(s, t)
    loss.backward()
    average_gradients(student)
    return loss.detach(), [p.grad for p in student.parameters()]  # type: ignore[misc]


def two_steps(preset: str, part: slice) -> dict[str, Any]:
    """The method's terms of two steps, and student, embeddings and memory after them, as DDP trains them."""
    run = Learner(preset)
    if dist.is_initialized() and dist.get_rank() == 1:
        for value in run.loss.method.__dict__.get("state", {}).values():
            value.zero_()  # CRD's memory is that of rank 0, whatever a rank drew
    run.all.double().eval()  # BatchNorm as it stands: its statistics of a half are not those of the whole
    run.teacher_model.double()
    optimizer = torch.optim.SGD(run.all.parameters(), lr=1e-3)
    batch, terms = digits(), []
    mine = batch._replace(x=batch.x[part].double(), y=batch.y[part], index=batch.index[part])
    for _ in range(2):  # CRD's memory is read in the second as it was written in the first
        values = run.loss(*run.outputs(mine), mine)
        optimizer.zero_grad()
        values["loss"].backward()
        average_gradients(run.all)
        optimizer.step()
        terms.append({name: v.item() for name, v in values.items() if name not in ("loss", "ce")})
    return {"terms": terms, "state": {k: v for k, v in run.state().items() if isinstance(v, Tensor)}}


def average_gradients(module: nn.Module) -> None:
    if dist.is_initialized():
        for p in module.parameters():
            dist.all_reduce(p.grad)
            p.grad /= 2


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    quiet()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    maps = torch.arange(24.0).view(2, 3, 4)[:, :, : 4 - 2 * rank].requires_grad_()  # sentences of other lengths
    everyone = gather_batch(maps)
    everyone.square().sum().backward()
    assert everyone.shape == (4, 3, 4) and everyone[2:, :, 2:].eq(0).all()
    assert maps.grad is not None and torch.equal(maps.grad, 4 * maps.detach())  # the sum over both ranks
    found: dict[str, Any] = {"formulas": formulas(slice(0, 5) if rank == 0 else slice(5, 8))}
    found |= {preset: two_steps(preset, slice(4 * rank, 4 * rank + 4)) for preset in RELATIONAL}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """The same loss on each, and after DDP's averaging the same gradient, embeddings and memories included."""
    mp.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    one = {"formulas": formulas(WHOLE)} | {preset: two_steps(preset, WHOLE) for preset in RELATIONAL}
    for rank in range(2):
        two = torch.load(tmp_path / f"{rank}.pt")
        assert two.keys() == one.keys()
        for name, expected in one.items():
            message = f"{name} on rank {rank}: "
            torch.testing.assert_close(two[name], expected, rtol=1e-9, atol=1e-12, msg=lambda m, at=message: at + m)


def test_is_the_identity_in_one_process() -> None:
    x = torch.ones(2, 3)
    assert gather_batch(x) is x
