"""Data with several tasks: labels that follow from the classes of any data set, such as animal or vehicle."""

import copy
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.hashing import random_bits
from kd_lightning.data.module import DataModule, Split
from kd_lightning.types import UNLABELED, Batch, Source
from kd_lightning.utils.checks import UserError, choice, did_you_mean, number

_LABELS = 21  # salt: the samples that keep their label in a task
Groups = Mapping[str, Sequence[str]]
"""New class → the classes of the data that it is made of."""


class WithTasks(DataModule):
    """A data set whose samples have a label for each task; to be put before the class of the data set.

    >>> class WineTasks(WithTasks, Wine): ...
    >>> WineTasks(tasks={"grape": None, "region": {"piemonte": ["barolo", "barbera"], "asti": ["grignolino"]}})

    `Batch.y` is then a dictionary by task, and `classes` are those of all tasks one after the other.

    Args:
        tasks: Task → new class → classes of the data, each of which is named once; None for the classes as they are.
        task: One of them: then this is ordinary data with that task alone.
        task_label_fraction: Task → fraction of the training samples that keep their label in it, chosen by
            `split_seed`; the others are `UNLABELED` there.
        args: Arguments of the data set.
        common: Likewise.

    Raises:
        UserError: If a value is wrong.
    """

    def __init__(
        self,
        *args: Any,
        tasks: Mapping[str, Groups | None],
        task: str | None = None,
        task_label_fraction: Mapping[str, float] | None = None,
        **common: Any,
    ) -> None:
        if not isinstance(tasks, Mapping) or not tasks:
            raise UserError("data.tasks must name the tasks, as {kind: {animal: [cat, dog], vehicle: [ship, truck]}}")
        for name in tasks:
            if not str(name).isidentifier() or name == "logits":
                raise UserError(f"data.tasks: {name!r} is no name of a task; use letters, digits and _")
        self.groups, self.task = dict(tasks), task
        if task is not None:
            choice("data.task", task, tuple(tasks))
        if task_label_fraction is not None and not isinstance(task_label_fraction, Mapping):
            raise UserError(
                f"data.task_label_fraction must be a fraction for each task, as {{{next(iter(tasks))}: 0.1}}, "
                f"got {task_label_fraction}"
            )
        self.fractions: dict[str, float] = {}
        for name, fraction in (task_label_fraction or {}).items():
            choice("data.task_label_fraction", name, tuple(tasks))
            fraction = number(f"data.task_label_fraction.{name}", fraction, gt=0, le=1)
            if fraction < 1:
                self.fractions[name] = fraction
        self._trainers: list[Any] = [None]
        super().__init__(*args, **common)

    @property
    def trainer(self) -> Any:
        """The Trainer, which the data of each task share: it is there after they are."""
        return self._trainers[0]

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        self._trainers[0] = trainer

    @property
    def own_classes(self) -> list[str]:
        return super().classes  # type: ignore[safe-super]  # the data set's own, which comes after this class

    @property
    def classes(self) -> list[str]:
        return [name for names in self.all_tasks.values() for name in names]

    @property
    def tasks(self) -> dict[str, int]:
        return {} if self.task else {task: len(names) for task, names in self.all_tasks.items()}

    @property
    def all_tasks(self) -> dict[str, list[str]]:
        """Task → its class names: of all tasks, or of the one that was chosen."""
        return {task: self._class_names(task) for task in ([self.task] if self.task else self.groups)}

    def _class_names(self, task: str) -> list[str]:
        groups = self.groups[task]
        return list(self.own_classes) if groups is None else list(groups)

    @cached_property
    def _class_tables(self) -> dict[str, Tensor]:
        """Task → its class for each class of the data."""
        own = self.own_classes
        found = {}
        for task, groups in self.groups.items():
            found[task] = torch.arange(len(own)) if groups is None else _table(f"data.tasks.{task}", groups, own)
        return found

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        tables = self._class_tables
        super().setup(stage)  # type: ignore[safe-super]
        self._own_splits = self.splits
        self.splits = {
            split: ByTask(source, tables, self.fractions if split == "train" else {}, self.split_seed)
            for split, source in self._own_splits.items()
        }
        if self.task:
            self.splits = {split: OneTask(source, self.task) for split, source in self.splits.items()}

    def of(self, task: str) -> DataModule:
        if self.task == task or not task:
            return self
        view = copy.copy(self)
        view.task = choice("task", task, tuple(self.groups))
        view.splits = {split: OneTask(source, task) for split, source in self.splits.items()}
        return view

    @property
    def labelled(self) -> Tensor | None:
        known = super().labelled
        if self.task not in self.fractions:
            return known
        known = torch.arange(len(self._own_splits["train"])) if known is None else known
        return known[_keeps(known, self.task, self.fractions[self.task], self.split_seed)]

    def label_identity(self) -> Any:
        own = super().label_identity()
        changed = {
            task: [self.groups[task], self.fractions.get(task, 1.0)]
            for task in ([self.task] if self.task else self.groups)
            if self.groups[task] is not None or task in self.fractions
        }
        return [own, changed] if changed else own

    def model_kwargs(self) -> dict[str, Any]:
        return super().model_kwargs() | ({"tasks": self.tasks} if self.tasks else {})

    def _own(self) -> Any:
        """Return the data set without tasks, to call its methods with its own splits."""
        own = copy.copy(self)
        own.splits = self._own_splits
        return super(WithTasks, own)

    def plain_train(self) -> Source:
        source = ByTask(self._own().plain_train(), self._class_tables, self.fractions, self.split_seed)
        return OneTask(source, self.task) if self.task else source

    def sample_names(self) -> list[str] | None:
        names: list[str] | None = self._own().sample_names()
        return names

    def raw_samples(self, split: Split, order: Tensor) -> Any:
        return self._own().raw_samples(split, order)


class ByTask(Source):
    """The samples of `source` with their labels by task.

    Args:
        source: Samples with plain labels.
        tables: Task → its class for each class of the source.
        fractions: Task → fraction of the samples that keep their label; all where it is missing.
        seed: Chooses these samples.
    """

    def __init__(self, source: Source, tables: Mapping[str, Tensor], fractions: Mapping[str, float], seed: int):
        self.source, self.fractions, self.seed = source, dict(fractions), seed
        # A last row for UNLABELED, which is -1.
        self.tables = {task: torch.cat([table, table.new_tensor([UNLABELED])]) for task, table in tables.items()}

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        tables: dict[str, Tensor] | None = None
        for batch in self.source.batches(order, batch_size, seed, epoch, device):
            if tables is None:
                tables = {task: table.to(batch.y.device) for task, table in self.tables.items()}
            y = {task: self._hide(task, table[batch.y], batch.index) for task, table in tables.items()}
            mixed = batch.mixed
            if mixed is not None:
                other = {task: self._hide(task, table[mixed.y], mixed.index) for task, table in tables.items()}
                mixed = mixed._replace(y=other)
            yield batch._replace(y=y, mixed=mixed)

    def _hide(self, task: str, y: Tensor, index: Tensor) -> Tensor:
        if task not in self.fractions:
            return y
        return y.masked_fill(~_keeps(index, task, self.fractions[task], self.seed), UNLABELED)


class OneTask(Source):
    """The samples of a source by task, with the labels of one task alone."""

    def __init__(self, source: Source, task: str):
        self.source, self.task = source, task

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        for batch in self.source.batches(order, batch_size, seed, epoch, device):
            yield batch.of(self.task)


def _keeps(index: Tensor, task: str, fraction: float, seed: int) -> Tensor:
    """Return whether each sample `[B]` keeps its label in a task, a function of its index and `seed`."""
    return random_bits(seed, _LABELS, zlib.crc32(task.encode()), index) < fraction * 2**32


def _table(key: str, groups: Groups, own: Sequence[str]) -> Tensor:
    """Return the new class of each class in `own`. Raises UserError unless each is named exactly once."""
    if not isinstance(groups, Mapping) or len(groups) < 2:
        raise UserError(f"{key} must have two or more classes, as {{animal: [cat, dog], vehicle: [ship, truck]}}")
    found: dict[str, int] = {}
    for k, (group, names) in enumerate(groups.items()):
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise UserError(f"{key}.{group} must be a list of classes of the data, got {names!r}")
        for name in map(str, names):
            if name not in own:
                raise UserError(f"{key}.{group} names {name!r}, which is no class of the data{did_you_mean(name, own)}")
            if name in found:
                raise UserError(f"{key} names the class {name!r} twice; it must be in one place")
            found[name] = k
    if lacks := [name for name in own if name not in found]:
        raise UserError(f"{key} lacks {', '.join(lacks)}; each class of the data must be named once")
    return torch.tensor([found[name] for name in own])
