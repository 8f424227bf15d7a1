"""The values that travel between the parts, and the interfaces between them. Shapes: B samples, C classes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

UNLABELED = -1
"""Label of a training sample whose class is unknown: it is distilled, and the task loss skips it."""


def part(by_task: Any, task: str) -> Any:
    """Return the entry of one task; `""` is the only task of ordinary data, whose values are no dictionaries."""
    return by_task[task] if task else by_task


def whole(parts: Mapping[str, Any]) -> Any:
    """Return what `part` takes apart: the value of the only task `""`, or the dictionary by task."""
    return parts.get("", parts)


def each_of(value: Any, tasks: Iterable[str], default: Any) -> dict[str, Any]:
    """Return task → value, where `value` holds for all tasks, or is a dictionary that may lack some."""
    return {task: value.get(task, default) if isinstance(value, Mapping) else value for task in tasks}


class Mixed(NamedTuple):
    """The other half of each picture in a batch of mixed pictures (mixup, cutmix)."""

    y: Any
    """Class of the other image `[B]`, int64; by task as in `Batch`."""
    share: Tensor
    """Fraction of the picture that shows the sample itself `[B]`, in [0, 1]."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs
    """Position of the other image in its split `[B]`, int64."""


class Batch(NamedTuple):
    """One batch; teacher and student are given the same one."""

    x: Any
    """Input of a model: images `[B, 3, H, W]`, or a dictionary of tensors such as token ids and mask."""
    y: Any
    """Class indices `[B]`, int64, or `UNLABELED`; of a mixed picture, the class of its larger part.

    Where the data has several tasks, a dictionary of these by task.
    """
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs
    """Position of each sample in its split `[B]`, int64."""
    view: Tensor | None = None
    """Number of each sample's augmented view `[B]`, int64; None if views are not numbered."""
    mixed: Mixed | None = None
    """None if every picture shows one sample."""
    raw: Tensor | Sequence[Any] | None = None
    """For a teacher that prepares raw samples itself: the row of each one among all of the data set `[B]`, int64, or
    the B raw samples; None if no teacher may."""

    @property
    def size(self) -> int:
        """Number of samples, B."""
        return len(self.index)

    def of(self, task: str) -> "Batch":
        """Return the batch with the labels of one task; `""` is the only task of ordinary data."""
        if not task:
            return self
        mixed = None if self.mixed is None else self.mixed._replace(y=part(self.mixed.y, task))
        return self._replace(y=part(self.y, task), mixed=mixed)


def batch_of(x: Any, count: int) -> Batch:
    """Return inputs of `count` samples outside a loader as a batch: without labels, and as if of the first samples."""
    rows = torch.arange(count, device=tree_leaves(x)[0].device)
    return Batch(x, torch.full_like(rows, UNLABELED), rows, raw=rows)


class Outputs(NamedTuple):
    """The answer of a model, or of several teachers together, to a batch."""

    logits: Any
    """`[B, C]`, before softmax; of several teachers, their fused logits at T = 1.

    Of a student with several heads, and of the teachers of several tasks, a dictionary of these by task.
    """
    features: Mapping[str, Tensor] = MappingProxyType({})
    """Layer name → activation, for the layers that the loss asked for."""
    members: tuple["Outputs", ...] = ()
    """Answer of each teacher, if there are several; of the teachers of several tasks, in the order of `logits`."""

    def of(self, task: str) -> "Outputs":
        """Return the answer for one task; `""` is the only task of ordinary data."""
        if not task:
            return self
        if self.members:
            return self.members[list(self.logits).index(task)]
        return self._replace(logits=part(self.logits, task))


class Teacher(Protocol):
    """Answers batches with frozen outputs. Not an `nn.Module`: Lightning must not train, save or wrap it."""

    models: list[nn.Module]
    """The networks that it runs."""
    members: Sequence["Teacher"]
    """The teachers of an ensemble; empty for a single one."""
    fixed: bool
    """True if its answer to an evaluation batch never changes, so that it may be asked once."""
    evaluates: bool = True
    """False if it has answers to training samples only; then it has no scores."""
    seconds_ahead: float = 0.0
    """Seconds that the answers of this epoch took before its first step."""

    def start_epoch(self, epoch: int) -> None:
        """Prepare for an epoch; called before its first training batch."""

    def end_epoch(self) -> None:
        """Finish an epoch; called after its last training batch."""
        return

    def compile(self, batch_size: int) -> None:
        """Compile the networks for training batches of one size."""

    def __call__(self, batch: Batch) -> Outputs:
        """Answer a training batch."""

    def evaluate(self, batch: Batch) -> Outputs:
        """Answer a validation or test batch."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast all tensors, as `nn.Module._apply` does."""

    def of(self, task: str) -> "Teacher | None":
        """Return the teacher of one task, None if it has none; `""` is the only task of ordinary data."""
        return self


class Source(Protocol):
    """The samples of one split."""

    def __len__(self) -> int: ...

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches on `device` of the samples `order` `[n]` (positions in the split); the last may be smaller."""


@dataclass(frozen=True)
class StudentCard:
    """Everything needed to rebuild a student around its weights and to use it. Stored as JSON beside the weights."""

    name: str
    """Name for `create_model`."""
    kwargs: Mapping[str, Any]
    """Arguments of the model, as given in `model.student_kwargs`."""
    classes: Sequence[str]
    """Class names in the order of the logits, those of several tasks one after the other."""
    inputs: Mapping[str, Any]
    """Facts of the data that models depend on, such as `image_size`; see `DataModule.model_kwargs`."""
    preprocessing: Mapping[str, Any]
    """`kind` (such as `images`) and the values of that kind; see `DataModule.preprocessing`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further facts, such as those that an exported file adds."""

    @property
    def tasks(self) -> dict[str, Sequence[str]]:
        """Task → its class names; `""` is the only task of an ordinary student."""
        sizes = self.inputs.get("tasks") or {"": len(self.classes)}
        ends = list(accumulate(sizes.values()))
        return {task: self.classes[end - size : end] for (task, size), end in zip(sizes.items(), ends, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "StudentCard":
        """Return the card that `as_dict` described. Raises TypeError if a field is missing or unknown."""
        return StudentCard(**values)
