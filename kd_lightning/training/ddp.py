"""Several processes that train one student (DistributedDataParallel)."""

import inspect
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import DistNetworkError, DistStoreError
from torch.nn.parallel import DistributedDataParallel

from kd_lightning.utils.checks import UserError
from kd_lightning.utils.distributed import rank_name


class Ddp(DDPStrategy):
    """Lightning's DDP with gradients that are views of what is sent, and without a broadcast of what is equal.

    `static_graph` stays off: with it Lightning was seen to leave parameters unsynchronized (Lightning #20704), and a
    step that leaves out a term of the loss would be another graph.

    Args:
        buffers_are_equal: All processes change their buffers alike, as SyncBatchNorm does. Other BatchNorms see their
            own samples only, and rank 0's statistics are sent to all in every step.
    """

    def __init__(self, buffers_are_equal: bool = False) -> None:
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.15
        silent: Any = {name: False} if buffers_are_equal else {}
        super().__init__(gradient_as_bucket_view=True, **silent)

    def setup_distributed(self) -> None:
        """Let the processes meet. Raises UserError if one does not come in time."""
        try:
            super().setup_distributed()
        except (DistNetworkError, DistStoreError) as e:
            at = self.cluster_environment
            where = "" if at is None else f" at {at.main_address}:{at.main_port}"
            reason = (str(e).splitlines() or ["no answer"])[0][:160]
            raise UserError(
                f"trainer.devices, trainer.num_nodes: rank {rank_name()} waited in vain for the other processes{where} "
                f"({reason}); start the same command on all {self.num_nodes} node(s), each with its own NODE_RANK, and "
                "let them reach that port; see docs/gpu.md"
            ) from e
