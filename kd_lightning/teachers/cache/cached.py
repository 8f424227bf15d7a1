"""A teacher that is asked once for each view of each image; later epochs, runs and temperatures look it up."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.teachers.cache.table import LogitTable
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.types import Batch, Outputs

MOST_BYTES = 256 * 2**20  # of one epoch's answers on the device


class CachedTeacher:
    """Answers training batches from a table of logits, and asks `live` for what is not in it yet.

    The table's row is the view of the image, `index · views + view`, where views are numbered (crop and flip: 162);
    otherwise there is a table for each (seed, epoch), and its row is `index`. Exact to the rounding of the storage
    type, because the key says all that decides the pixels.

    `epoch_views(epoch)` tells the view `[N]` that each sample has in an epoch. With it, an epoch whose answers are all
    there is read once and kept on the device: then no step waits for main memory.
    """

    def __init__(
        self,
        live: LiveTeacher,
        folder: Path | None,
        samples: int,
        classes: int,
        views: int | None,
        dtype: torch.dtype,
        seed: int,
        epoch_views: Callable[[int], Tensor] | None = None,
    ):
        self.live, self.models = live, live.models
        self._folder, self._samples, self._classes, self._views = folder, samples, classes, views
        self._dtype, self._seed = dtype, seed
        self.asked = self.found = 0
        self._epoch_views = epoch_views
        self._name = ""
        self._table: LogitTable | None = None
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Turns to the table of this epoch, where there is one an epoch."""
        self._epoch, self._looked = epoch, False
        self._answers: Tensor | None = None
        name = f"seed{self._seed}-epoch{epoch}" if self._views is None else "views"
        if self._table is None or name != self._name:
            self._name, self._table = name, None

    def table(self) -> LogitTable:
        """Made when the first answer is wanted: a teacher that is refused before leaves no file behind."""
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
        """The answers to all samples in this epoch `[N, C]`, if all are known and few enough to be kept on `device`."""
        if LogitTable.size(self._samples, self._classes, self._dtype) > MOST_BYTES:
            return None
        keys = torch.arange(self._samples)
        if self._views is not None:
            if self._epoch_views is None:
                return None
            keys = keys * self._views + self._epoch_views(self._epoch)
        logits, there = self.table().read(keys)
        return logits.to(device) if there.all() else None

    def look_up(self, batch: Batch) -> Outputs:
        """Answers a batch of any views; what the table lacks is asked and put there."""
        keys = batch.index if self._views is None else batch.index * self._views + _view(batch)
        table = self.table()
        logits, there = table.read(keys.cpu())
        self.asked += len(there)
        self.found += int(there.sum())
        if not there.all():
            missing = ~there
            some = batch._replace(x=batch.x[missing.to(batch.x.device)])
            answer = self.live(some).logits
            table.write(keys.cpu()[missing], answer)
            logits[missing] = answer.to(logits)
        return Outputs(logits.to(batch.y.device))

    def evaluate(self, batch: Batch) -> Outputs:
        """Not from the table: evaluation images are other images."""
        return self.live(batch)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        self.live.apply_(fn)


def _view(batch: Batch) -> Tensor:
    assert batch.view is not None
    return batch.view
