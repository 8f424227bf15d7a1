"""A teacher that is asked once for each view of each sample; later epochs, runs and temperatures look it up."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.data.module import DataModule
from kd_lightning.teachers.cache.table import LogitTable
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.types import Batch, Outputs, Teacher

MOST_BYTES = 256 * 2**20  # of one epoch's answers on the device


class CachedTeacher(Teacher):
    """Answers training batches from a table of logits, and asks `live` for what is not in it yet.

    A row of the table is a view of a sample, `index · views + view`, where views are numbered (crop and flip: 162).
    Otherwise there is a table for each (seed, epoch), and a row is `index`. Answers are exact to the rounding of the
    storage type, because the name of the folder says everything that decides the inputs.

    An epoch whose answers are all known is read once and kept on the device: then no step waits for main memory.

    Args:
        live: The teacher that is asked.
        folder: Where tables are kept; None for main memory.
        data: The data set whose training batches are answered.
        dtype: Type in which logits are stored.
    """

    members: Sequence[Teacher] = ()
    fixed = True

    def __init__(self, live: LiveTeacher, folder: Path | None, data: DataModule, dtype: torch.dtype):
        self.live, self.models = live, live.models
        self._folder, self._data, self._dtype = folder, data, dtype
        self._samples, self._classes, self._views = data.sizes["train"], data.num_classes, data.num_views
        self.asked = self.found = 0
        self._name = ""
        self._table: LogitTable | None = None
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Turn to the table of this epoch, where each epoch has its own."""
        self._epoch, self._looked = epoch, False
        self._answers: Tensor | None = None
        name = f"seed{self._data.seed}-epoch{epoch}" if self._views is None else "views"
        if self._table is None or name != self._name:
            self._name, self._table = name, None

    def table(self) -> LogitTable:
        """Return the table, made when the first answer is wanted: a teacher refused before leaves no file behind."""
        if self._table is None:
            path = self._folder / f"{self._name}.bin" if self._folder else None
            self._table = LogitTable(path, self._samples * (self._views or 1), self._classes, self._dtype)
        return self._table

    def __call__(self, batch: Batch) -> Outputs:
        if not self._looked:
            self._answers, self._looked = self.whole_epoch(batch.y.device), True
        if self._answers is None:
            return self.look_up(batch)
        self.asked += len(batch.index)
        self.found += len(batch.index)
        return Outputs(self._answers[batch.index])

    def whole_epoch(self, device: torch.device) -> Tensor | None:
        """Return the answers to all samples in this epoch `[N, C]`, if all are known and `device` has room for them."""
        if LogitTable.size(self._samples, self._classes, self._dtype) > MOST_BYTES:
            return None
        keys = torch.arange(self._samples)
        if self._views is not None:
            views = self._data.epoch_views(self._epoch)
            if views is None:
                return None
            keys = keys * self._views + views
        logits, there = self.table().read(keys)
        return logits.to(device) if there.all() else None

    def look_up(self, batch: Batch) -> Outputs:
        """Answer a batch of any views; what the table lacks is asked and stored."""
        keys = batch.index if self._views is None else batch.index * self._views + _view(batch)
        table = self.table()
        logits, there = table.read(keys.cpu())
        self.asked += len(there)
        self.found += int(there.sum())
        if not there.all():
            missing = ~there
            answer = self.live(self._some(batch, missing)).logits
            table.write(keys.cpu()[missing], answer)
            logits[missing] = answer.to(logits)
        return Outputs(logits.to(batch.y.device))

    def _some(self, batch: Batch, mask: Tensor) -> Batch:
        if mask.all():
            return batch
        return batch._replace(x=self._data.select(batch.x, mask), y=batch.y[mask.to(batch.y.device)])

    def evaluate(self, batch: Batch) -> Outputs:
        """Ask the teacher itself: evaluation samples are others."""
        return self.live.evaluate(batch)

    def compile(self, batch_size: int) -> None:
        """Do nothing: batches of missing answers have changing sizes."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        self.live.apply_(fn)


def _view(batch: Batch) -> Tensor:
    assert batch.view is not None
    return batch.view
