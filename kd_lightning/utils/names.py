"""Names for files, folders, commands and scores."""

from collections.abc import Iterable

PREFIX = ["python -m kd_lightning."]
"""Words before a command's name in its help; `kd` sets its own."""


def program(command: str) -> str:
    """Return the command as the user called it: `python -m kd_lightning.compare`, or `kd compare`."""
    return PREFIX[0] + command


def task_name(task: str, name: str) -> str:
    """Return `task/name`, or `name` alone if there is one task, `""`."""
    return f"{task}/{name}" if task else name


def tasks_in(scores: Iterable[str]) -> list[str]:
    """Return the tasks of scores by `task_name`, in their order; `[""]` if there is one task."""
    return list(dict.fromkeys(name.rpartition("/")[0] for name in scores if "/" in name)) or [""]


def slug(name: str) -> str:
    """Return `name` with everything but letters, digits, `_` and `-` replaced by `-`."""
    return "".join(c if c.isalnum() or c in "_-" else "-" for c in name)
