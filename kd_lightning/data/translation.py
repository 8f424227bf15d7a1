"""What stands between the data and a teacher that was trained elsewhere."""

from typing import Any

from torch import nn

from kd_lightning.types import Batch


class Translation(nn.Module):
    """From a batch of the data to the inputs of another network."""

    reads_raw = False
    """True if it takes raw samples by `Batch.raw`, so that nothing depends on how the data prepares them."""

    def forward(self, batch: Batch) -> Any:
        """Return the inputs `Batch.x` that the network wants."""
        raise NotImplementedError
