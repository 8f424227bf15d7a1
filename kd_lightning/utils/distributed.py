"""Several processes, started by Lightning (which repeats the command), torchrun or srun: who decides, who is told.

The first rank writes files, speaks, and decides what depends on the disk or the clock; the others are told.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import open_dict, read_write

from kd_lightning.utils.checks import UserError

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # in the order in which Lightning asks for them
# What Lightning sets in the first process when it starts the others.
_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TOLD = "KD_LIGHTNING_TOLD"  # what the first process has decided, for those that Lightning starts
_LONGEST = timedelta(days=30)  # a rank may wait for as long as the first one waits for another job's teacher

_stores: list[Any] = []
_count = 0


def is_first_rank() -> bool:
    """Return whether this process is the one that writes files and speaks: global rank 0."""
    rank = vars(rank_zero_only).get("rank")  # set by Lightning, once it is imported
    if rank is None:
        rank = next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0)
    # Started by hand on each node, a process has no rank before Lightning gives it one.
    alone_on_node = "RANK" not in os.environ and "SLURM_PROCID" not in os.environ
    return rank == 0 and not (alone_on_node and int(os.environ.get("NODE_RANK", 0)) > 0)


def is_started_by_launcher() -> bool:
    """Return whether torchrun or srun has started several processes of this training."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ.get("WORLD_SIZE", 1)) > 1
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # Lightning's own rule
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1 and not interactive


def end_with_the_first() -> None:
    """Let a process that Lightning has started end when the first one is killed; it would wait for half an hour."""
    if _TOLD not in os.environ or int(os.environ.get("LOCAL_RANK", 0)) == 0 or is_started_by_launcher():
        return
    first = os.getppid()

    def watch() -> None:
        while os.getppid() == first:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch over the first process").start()


def tell(key: str, decide: Callable[[], Any]) -> Any:
    """Return what the first rank decides, on every rank; plain values only.

    Args:
        key: Names the decision; the ranks ask for the same ones in the same order.
        decide: Called on the first rank alone.

    Raises:
        UserError: On every rank, if `decide` raises it.
    """
    if "torch" in sys.modules and sys.modules["torch"].distributed.is_initialized():
        return _broadcast(decide)
    if is_started_by_launcher():
        return _through_store(key, decide)
    if is_first_rank():
        answer = decide()
        os.environ[_TOLD] = json.dumps(json.loads(os.environ.get(_TOLD, "{}")) | {key: answer})
        return answer
    told = json.loads(os.environ.get(_TOLD, "{}"))
    if key not in told:
        raise UserError(f"rank {rank_name()} was not told {key!r} by the first process; start all by one command")
    return told[key]


def _answer(decide: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"answer": decide()}
    except UserError as e:
        if not is_first_rank():
            raise
        _errors.append(e)
        return {"error": str(e)}


_errors: list[UserError] = []  # the first rank raises the error itself, which may be of a subclass


def _unpack(told: dict[str, Any]) -> Any:
    if "error" in told:
        raise _errors.pop() if _errors else UserError(told["error"])
    return told["answer"]


def _broadcast(decide: Callable[[], Any]) -> Any:
    import torch

    box = [_answer(decide) if is_first_rank() else None]
    torch.distributed.broadcast_object_list(box)
    assert box[0] is not None
    return _unpack(box[0])


def _through_store(key: str, decide: Callable[[], Any]) -> Any:
    global _count
    _count += 1
    name = f"kd_lightning/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_count}/{key}"
    store = _store()
    if is_first_rank():
        told = _answer(decide)
        store.set(name, json.dumps(told))
        return _unpack(told)
    return _unpack(json.loads(store.get(name)))


def _store() -> Any:
    """Return the store through which the processes of torchrun or srun meet; Lightning later joins the same one."""
    if not _stores:
        from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
        from torch.distributed import rendezvous

        elastic = "TORCHELASTIC_RUN_ID" in os.environ
        environment = TorchElasticEnvironment() if elastic else SLURMEnvironment(auto_requeue=False)
        os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        store, _, _ = next(iter(rendezvous("env://", environment.global_rank(), environment.world_size())))
        store.set_timeout(_LONGEST)
        _stores.append(store)
    return _stores[0]


def rank_name() -> str:
    """Return the rank of this process and its machine, for messages."""
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    return f"{rank} on {os.uname().nodename}"


@contextmanager
def repeat_this_job_only(out: Path) -> Iterator[None]:
    """In a sweep, make the command that Lightning repeats this one job in its folder `out`, not the whole sweep.

    Afterwards the process forgets the ranks it started, so that the next job starts its own.
    """
    config: Any = HydraConfig.get()
    argv, launched_by_other = sys.argv, "LOCAL_RANK" in os.environ
    flags = [a for a in argv[1:] if "=" not in a or a.startswith(("-", "hydra"))]  # and the words that belong to them
    flags = [a for a in flags if a not in ("-m", "--multirun") and not a.startswith("~")]  # which deletes a key
    sys.argv = [argv[0], *flags, *config.overrides.task, "hydra.mode=RUN"]
    with read_write(config), open_dict(config):
        config.run.dir = str(out)
    try:
        yield
    finally:
        sys.argv = argv
        import torch  # which takes seconds, and was imported in between

        if not launched_by_other and "LOCAL_RANK" in os.environ:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for name in _VARIABLES:
                os.environ.pop(name, None)
            setattr(rank_zero_only, "rank", 0)  # noqa: B010  # an attribute that Lightning adds to a function
