"""The gate between files of unknown origin and code: what a run directory or a weights file may have built.

A configuration that the user typed may name any function. One that was read from a file may name only what this
package, torch's optimizers and Lightning's Trainer offer; anything else runs only inside `trusting()`.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kd_lightning.utils.checks import UserError

PACKAGES = ("kd_lightning.data", "kd_lightning.losses", "kd_lightning.schedules", "torch.optim")
"""Packages of which every public class or function that they define themselves may be built."""
OBJECTS = (
    "lightning.pytorch.Trainer",
    *(f"lightning.pytorch.callbacks.{name}" for name in ("EarlyStopping", "LearningRateMonitor", "DeviceStatsMonitor")),
    "lightning.pytorch.loggers.CSVLogger",
    "kd_lightning.training.averaging.EMA",
    "kd_lightning.training.tensorboard.Events",
)
NETWORKS = (
    *(f"kd_lightning.deploy.{kind}" for kind in ("pruned", "sparse", "int8")),
    "kd_lightning.losses.simkd.rebuild",
)
"""Dotted paths that a student's card may name; the network inside is checked when it is made."""
FETCHING = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained_strict")
"""Arguments of timm with which it reads files of its own."""

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)
_programs: ContextVar[bool] = ContextVar("programs", default=False)


@contextmanager
def trusting(yes: bool = True, programs: bool | None = None) -> Iterator[None]:
    """Let what is built inside import any code (`yes`), or only what the package offers.

    Args:
        yes: Allow it.
        programs: Open files that are programs (`.pt2`), too; None for `yes`. A user who types the name of a class
            knows that it is code, but one who types a file of weights may not.
    """
    tokens = _trusted.set(yes), _programs.set(yes if programs is None else programs)
    try:
        yield
    finally:
        _trusted.reset(tokens[0])
        _programs.reset(tokens[1])


def is_trusted() -> bool:
    """Return whether any code may be imported here."""
    return _trusted.get()


def are_programs_trusted() -> bool:
    """Return whether files that are programs may be opened here."""
    return _programs.get()


def check_targets(node: Any, key: str) -> None:
    """Raise UserError if some `_target_` in the plain value `node` may not be built here; `key` names the node."""
    if is_trusted():
        return
    for path, target in _targets(node, key):
        if not _is_offered(target):
            raise _refusal(f"{path}._target_", target)


def check_network(name: str, kwargs: Mapping[str, Any], key: str) -> None:
    """Raise UserError if the network `name` may not be made here."""
    if is_trusted():
        return
    of_timm = re.fullmatch(r"timm/[\w.]+", name)
    if of_timm and (given := [argument for argument in FETCHING if argument in kwargs]):
        raise _refusal(f"{key}, argument {given[0]}", str(kwargs[given[0]]))
    if name.startswith("hf/"):
        return  # tensors and values only; `models.hugging_face` leaves out what fetches code
    if not of_timm and not re.fullmatch(r"\w+", name) and name not in NETWORKS:
        raise _refusal(key, name)


def names_own_code(config: Mapping[str, Any]) -> bool:
    """Return whether a whole run configuration, as plain values, names code that `trusting` must allow."""
    model = config["model"]
    teacher = model["teacher"]
    if any(str(file).endswith(".pt2") for file in _leaves(model.get("teacher_weights"))):
        return True  # a program: see `teachers.exported`
    names = [model["student"], *_leaves(teacher)]
    with trusting(False):
        try:
            check_targets(config, "config")
            for name in names:
                check_network(str(name), {}, "model")
        except UserError:
            return True
    return False


def _leaves(value: Any) -> list[Any]:
    """Return the values of several teachers, and of several tasks."""
    if isinstance(value, Mapping):
        return [leaf for child in value.values() for leaf in _leaves(child)]
    return list(value) if isinstance(value, list) else [value]


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, str(node["_target_"])
        for name, child in node.items():
            yield from _targets(child, f"{key}.{name}")
    elif isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            yield from _targets(child, f"{key}[{i}]")


def _is_offered(target: str) -> bool:
    """Return whether `target` is in `OBJECTS`, or defined by one of `PACKAGES` under this public name.

    A module's attribute is not enough: `kd_lightning.losses.torch.load` is one, too.
    """
    if target in OBJECTS:
        return True
    package, _, name = target.rpartition(".")
    if package not in PACKAGES or name.startswith("_"):
        return False
    found = vars(importlib.import_module(package)).get(name)
    if not inspect.isclass(found) and not (package == "kd_lightning.schedules" and inspect.isfunction(found)):
        return False
    return found.__module__ == package or found.__module__.startswith(f"{package}.")


def _refusal(where: str, what: str) -> UserError:
    return UserError(
        f"{where}: {what!r} is code that kd_lightning does not offer, named by a file; nothing of it was run. "
        "If you trust the file's origin, allow it with --trust (train: trust=true, Python: trust=True)"
    )
