"""Several heads on one trunk."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kd_lightning.utils.checks import UserError, did_you_mean


class Heads(nn.Module):
    """A network with one head for each task.

    The classifier of `network` gives the classes of all tasks one after the other: a linear layer with ΣC outputs is
    the same as one linear layer for each task side by side. So any network has heads, whatever its classifier is. One
    that gives a dictionary by task has its own, and is left as it is.

    Args:
        network: From inputs to logits `[B, ΣC]`.
        tasks: Task → its number of classes, C.
    """

    def __init__(self, network: nn.Module, tasks: Mapping[str, int]):
        super().__init__()
        self.network, self.tasks = network, dict(tasks)

    def forward(self, *args: Any, **kwargs: Any) -> Mapping[str, Tensor]:
        """Return task → logits `[B, C]`."""
        logits = self.network(*args, **kwargs)
        if isinstance(logits, Mapping):
            return logits
        return dict(zip(self.tasks, logits.split(list(self.tasks.values()), dim=1), strict=True))


def check_answer(who: str, logits: Any, classes: Mapping[str, int], size: int, all_tasks: bool = True) -> None:
    """Raise UserError unless logits are `[size, C]`, by task if there are several, as all losses and scores take them.

    Args:
        who: Whose answer it is, for messages.
        logits: The answer.
        classes: Task → C; `""` is the only task of ordinary data.
        size: Number of samples.
        all_tasks: False if a task may be missing, as that of a teacher.
    """
    several = "" not in classes
    if several != isinstance(logits, Mapping):
        wanted = f"one tensor for each task, {{{', '.join(classes)}}}" if several else "one tensor"
        got = f"logits by task ({', '.join(logits)})" if isinstance(logits, Mapping) else "one tensor"
        raise UserError(f"{who} gives {got}, wanted {wanted}")
    by_task: Mapping[str, Tensor] = logits if several else {"": logits}
    for task, count in classes.items():
        if task not in by_task:
            if all_tasks:
                given = f"{', '.join(by_task)}{did_you_mean(task, by_task)}"
                raise UserError(f"{who} has no head for the task {task!r}, only for {given}")
            continue
        if tuple(by_task[task].shape) != (size, count):
            of = f" of the task {task!r}" if task else ""
            shape = list(by_task[task].shape)
            raise UserError(f"{who} gives logits {shape}{of} for {size} samples, wanted {[size, count]}")
