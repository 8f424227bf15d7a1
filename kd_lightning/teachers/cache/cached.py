"""A teacher that is asked once for each view of each sample; later epochs, runs and temperatures look it up."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.data.module import DataModule
from kd_lightning.teachers.cache.table import LogitTable
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.types import Batch, Outputs, Teacher
from kd_lightning.utils.console import say

MOST_BYTES = 256 * 2**20  # of one epoch's answers on the device
LONG = 20.0  # seconds before an epoch that are told
TOGETHER = 64  # batches whose answers leave the device together
LEAST = 8  # samples asked at once: a matrix product of 1 to 3 rows rounds otherwise than one of a whole batch


class CachedTeacher(Teacher):
    """Answers training batches from a table of logits, and asks `live` for what is not in it yet.

    A row of the table is a view of a sample, `index · views + view`, where views are numbered (crop and flip: 162).
    Otherwise there is a table for each (seed, epoch), and a row is `index`. Answers are float32 and
    exact to the rounding of the storage type, as the name of the folder says everything that decides the inputs.

    Before the first step of an epoch, the answers that this process will need are read, what is missing of them is
    asked in full batches, and all are kept on the device: then no step waits for main memory. Views without numbers
    are new in each epoch, and making each picture twice may cost more than the network: there the teacher is asked
    step by step. Several processes each ask and read their own share, and find each other's answers in the file.

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
        self.seconds_ahead = 0.0
        self._name = ""
        self._table: LogitTable | None = None
        self._told = False
        self._unwritten: list[tuple[Tensor, Tensor]] = []  # keys, logits
        self._evaluated: LogitTable | None = None
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Turn to the table of this epoch, where each epoch has its own."""
        self.end_epoch()
        self._epoch, self._looked = epoch, False
        self._answers: Tensor | None = None
        self._is_read = False  # from the table, step by step; known at the first batch
        name = f"seed{self._data.view_seed}-epoch{epoch}" if self._views is None else "views"
        if self._table is None or name != self._name:
            self._name, self._table = name, None

    def end_epoch(self) -> None:
        """Write the answers that are still on the device."""
        if self._unwritten:
            with torch.autocast(self._unwritten[0][1].device.type, enabled=False):  # knows no fp16 on a CPU
                keys, logits = (torch.cat(parts) for parts in zip(*self._unwritten, strict=True))
            self.table().write(keys.cpu(), logits)
            self._unwritten.clear()

    def table(self) -> LogitTable:
        """Return the table, made when the first answer is wanted: a teacher refused before leaves no file behind."""
        if self._table is None:
            path = self._folder / f"{self._name}.bin" if self._folder else None
            self._table = LogitTable(path, self._samples * (self._views or 1), self._classes, self._dtype)
        return self._table

    def __call__(self, batch: Batch) -> Outputs:
        if not self._looked:
            self._answers, self._looked = self.whole_epoch(batch.y.device), True
            self._is_read = self._views is not None or batch.y.device.type == "cpu"
            if not self._is_read and self._is_large:  # where it is filled, main memory is faster than the teacher
                self._is_read = bool(self.table().read(batch.index.cpu())[1].all())
        if self._answers is not None:
            return Outputs(self._answers[batch.index].float())
        if self._is_read:
            return self.look_up(batch)
        said = self.live(batch).logits.to(self._dtype)
        self._write_later(batch.index, said)
        self.asked += len(said)
        return Outputs(said.float())

    @property
    def _is_large(self) -> bool:
        return LogitTable.size(self._samples, self._classes, self._dtype) > MOST_BYTES

    def whole_epoch(self, device: torch.device) -> Tensor | None:
        """Return the answers to what is shown in this epoch, `[N, C]`, on `device`; NaN to all other samples.

        None if they are too large for the device, or if they are not numbered and some are missing.
        """
        if self._is_large:
            return None
        keys = order = self._data.upcoming(self._epoch)
        if self._views is not None:
            views = self._data.epoch_views(self._epoch)
            if views is None:
                return None
            keys = order * self._views + views[order]
        logits, there = self.table().read(keys)
        if self._views is None and not there.all():
            return None
        answers = torch.full((self._samples, self._classes), torch.nan, dtype=self._dtype, device=device)
        answers[order[there].to(device)] = logits[there].to(device)
        since = time.perf_counter()
        if not there.all():
            self._ask(order[~there], keys[~there], answers)
        self.seconds_ahead = time.perf_counter() - since
        self.asked, self.found = self.asked + len(there), self.found + int(there.sum())
        return answers

    def _ask(self, order: Tensor, keys: Tensor, answers: Tensor) -> None:
        """Ask about the samples `order` `[n]` as they are shown in this epoch, and put what is said into `answers`."""
        size, device = self._data.batch_size, answers.device
        # On a GPU one shape only, for which kernels are chosen and compiled once.
        last = len(order) % size or size
        more = (min(size, LEAST) if device.type == "cpu" else size) - last
        shown = order[torch.arange(len(order) + max(0, more)) % len(order)]
        batches = self._data.splits["train"].batches(shown, size, self._data.view_seed, self._epoch, device)
        since, done = time.perf_counter(), 0
        for some, batch in zip(keys.split(size), batches, strict=True):
            said = self.live(batch).logits[: len(some)].to(self._dtype)
            answers[batch.index[: len(some)]] = said
            self._write_later(some, said)
            done += len(some)
            seconds = (time.perf_counter() - since) * len(order) / done
            if not self._told and not self._unwritten and seconds > LONG:
                self._told = True
                say(f"teacher: asked about {len(order):,} samples before the epoch begins, about {seconds:.0f} s")
        self.end_epoch()

    def _write_later(self, keys: Tensor, logits: Tensor) -> None:
        """Write answers now and then, as a GPU is waited for each time."""
        self._unwritten.append((keys, logits))
        if logits.device.type == "cpu" or len(self._unwritten) >= TOGETHER:
            self.end_epoch()

    def look_up(self, batch: Batch) -> Outputs:
        """Answer a batch of any views; what the table lacks is asked and stored."""
        keys = batch.index if self._views is None else batch.index * self._views + _view(batch)
        answer, found = self._rows(self.table(), keys, batch)
        self.asked += len(keys)
        self.found += found
        return answer

    def _rows(self, table: LogitTable, keys: Tensor, batch: Batch) -> tuple[Outputs, int]:
        """Answer a batch from the rows `keys` `[B]` of a table, and say how many were there; others are asked."""
        logits, there = table.read(keys.cpu())
        if not there.all():
            missing = _enough(~there)
            answer = self.live(self._some(batch, missing)).logits
            table.write(keys.cpu()[missing], answer)
            logits[missing] = answer.to(logits)
        return Outputs(logits.to(batch.y.device).float()), int(there.sum())

    def _some(self, batch: Batch, mask: Tensor) -> Batch:
        if mask.all():
            return batch
        here = mask.to(batch.y.device)
        raw = batch.raw[here] if isinstance(batch.raw, Tensor) else batch.raw
        return batch._replace(x=self._data.select(batch.x, mask), y=batch.y[here], index=batch.index[here], raw=raw)

    def evaluate(self, batch: Batch) -> Outputs:
        """Ask the teacher itself, or where samples of all splits are numbered, a table that has a row for each."""
        count = self._data.raw_count
        if count is None or not isinstance(batch.raw, Tensor):
            return self.live.evaluate(batch)
        if self._evaluated is None:
            path = self._folder / "raw.bin" if self._folder else None
            self._evaluated = LogitTable(path, count, self._classes, self._dtype)
        return self._rows(self._evaluated, batch.raw, batch)[0]

    def compile(self, batch_size: int) -> None:
        self.live.compile(batch_size)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        self.live.apply_(fn)


def _enough(missing: Tensor) -> Tensor:
    """Return which samples of a batch to ask for, bool: those that are missing, and others up to `LEAST`."""
    asked = torch.zeros_like(missing)
    asked[(~missing).int().argsort(stable=True)[: max(LEAST, int(missing.sum()))]] = True
    return asked


def _view(batch: Batch) -> Tensor:
    assert batch.view is not None
    return batch.view
