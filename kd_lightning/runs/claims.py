"""Claims on run directories: a folder belongs to one run, from its first moment, and when it goes on."""

import math
import pickle
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning.config import apply_overrides
from kd_lightning.runs.directory import (
    CONFIG,
    LAST,
    METRICS,
    PREVIOUS,
    is_finished,
    read,
    read_config,
    remove_partial,
    write_config,
)
from kd_lightning.runs.keys import INCIDENTAL, flatten
from kd_lightning.runs.lock import LOCK
from kd_lightning.runs.names import resume_word
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.distributed import is_first_rank, tell
from kd_lightning.utils.files import broken_entry

# Where files lie, and how long, fast and talkative a training is: what a run may change when it goes on.
CHANGEABLE = (
    "trainer.",
    "data.root",
    "data.unlabeled_root",
    "data.labels",
    "data.num_workers",
    "data.verify",
    "data.digest_cache",
    "model.teacher_weights",
    "teacher_stage.dir",
)

LENGTH = ("max_epochs", "max_steps", "max_time")


def claim(path: Path, config: DictConfig, resume: bool) -> Path | None:
    """Make `path` this run's own, or go on with the run in it. The first rank does it, and tells the others.

    Returns:
        The checkpoint to go on from, if there is one.

    Raises:
        UserError: If `path` holds a run already (with `resume`: a finished one), or cannot be written.
    """

    def first() -> str | None:
        if not resume:
            _create(path, config)
            return None
        _before.pop(path.absolute(), None)  # it is not this run that made the folder
        done = _check_is_longer(path, config) if is_finished(path) else 0
        remove_partial(path)
        newest = _newest_whole(path)
        if newest is None and done:  # training anew would replace what it has
            raise UserError(f"resume: the run in {path} is finished, but its {LAST} is missing; start a new run")
        return newest  # its configuration stays what it was until the training begins: `go_on`

    name = tell(f"checkpoint of {path}", first)
    return None if name is None else path / name


def _check_is_longer(path: Path, config: DictConfig) -> int:
    """Return the epochs of the finished run in `path`. Raises UserError unless `config` trains it for longer."""
    run = read(path)
    done: int = run.metrics["epochs"]
    limits = [(_limit(run.config.trainer.get(key)), _limit(config.trainer.get(key))) for key in LENGTH]
    grown = any(now > before for before, now in limits)
    if done >= config.trainer.max_epochs or not grown:  # it may have ended early, as by early stopping
        raise UserError(f"resume: the run in {path} is finished; give it more epochs with trainer.max_epochs=…")
    return done


def _limit(value: Any) -> float:
    """Return a length of `trainer` as a number, a `max_time` in seconds; without a limit infinity."""
    if value is None or value == -1:
        return math.inf
    if isinstance(value, str):
        days, hours, minutes, seconds = map(int, value.split(":"))
        return timedelta(days, seconds, minutes=minutes, hours=hours).total_seconds()
    return timedelta(**value).total_seconds() if isinstance(value, Mapping) else float(value)


def _newest_whole(path: Path) -> str | None:
    """Return the name of the checkpoint to go on from: the last one, or the one before if that is damaged."""
    found = [name for name in (LAST, PREVIOUS) if (path / name).is_file()]
    for name in found:
        if (problem := damage(path / name)) is None:
            if name != LAST:
                say(
                    f"{path / LAST} is {'damaged' if LAST in found else 'missing'}; going on from {PREVIOUS}, before it"
                )
            return name
    if found:
        what = "start a new run" if is_finished(path) else "delete it to start anew"
        raise UserError(f"resume: {path / found[0]} is damaged ({problem}); {what}")
    return None  # it was stopped before its first epoch ended


def check_links(path: Path) -> None:
    """Raise UserError if the run in `path` has a link in place of a file that would be written into.

    A stranger's `train.log` could be the user's `.bashrc`. Checkpoints and weights are replaced, never written into.
    """
    for file in path.rglob("*"):
        if file.is_symlink() and file.suffix not in (".ckpt", ".safetensors"):
            raise UserError(f"resume: {file} is a link to {file.readlink()}; put the file itself there, or remove it")


def damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint; None if nothing is. Every byte is read."""
    import torch  # takes seconds, which `--help` need not wait for

    try:
        if entry := broken_entry(path):
            return f"wrong checksum of {entry}"
        torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        return "it holds code, which is never run" if "GLOBAL" in str(e) else "it is no checkpoint"
    except Exception as e:  # whatever a damaged zip or pickle raises
        return str(e).splitlines()[0][:80] if str(e) else type(e).__name__
    return None


def holds(path: Path, config: DictConfig) -> bool:
    """Return whether `path` holds a run of `config`, finished or not. Raises UserError if it holds another run."""
    if not (path / CONFIG).is_file():
        return False
    there, wanted = flatten(read_config(path)), flatten(OmegaConf.create(OmegaConf.to_yaml(config, resolve=True)))
    differing = [k for k in {**there, **wanted} if k not in INCIDENTAL and there.get(k) != wanted.get(k)]
    if differing:
        k = differing[0]
        raise UserError(
            f"{path} holds a run with {k}={there.get(k)}, not {wanted.get(k)}; choose another hydra.sweep.dir"
        )
    return True


def state(path: Path, config: DictConfig) -> str:
    """Return whether the run of `config` in `path` is "new", "begun" or "finished"; the first rank looks.

    Raises:
        UserError: If `path` holds another run.
    """

    def look() -> str:
        if not holds(path, config):
            return "new"
        return "finished" if is_finished(path) else "begun"

    return tell(f"state of {path}", look)


def check_place(path: Path) -> None:
    """Raise UserError if the folder of a new run holds files of other origin: a mistyped folder, such as `docs`."""
    if (path / CONFIG).is_file():  # a run, of which `claim` says more
        return
    remove_partial(path)
    others = sorted({file.name for file in path.iterdir()} - {LOCK, _log_file()})
    if others:
        told = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UserError(f"hydra.run.dir: {path} is no run and holds {told}; give a new or an empty folder")


def _log_file() -> str:
    return f"{HydraConfig.get().job.name if HydraConfig.initialized() else 'train'}.log"


def _create(path: Path, config: DictConfig) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        before = frozenset(file.name for file in path.iterdir())
        write_config(path, config, exclusive=True)  # fails if it exists: two runs can never share a folder
    except FileExistsError as e:
        raise UserError(
            f"{path} already holds a run; go on with {resume_word(path)} or choose another hydra.run.dir"
        ) from e
    except OSError as e:
        raise UserError(f"cannot write to the output folder {path}: {e.strerror}; choose another hydra.run.dir") from e
    _before[path.absolute()] = before


_before: dict[Path, frozenset[str]] = {}  # names in a folder before a run of this process claimed it


def resumed_config(path: Path, overrides: list[str]) -> DictConfig:
    """Return the configuration of the run in `path`, changed by `overrides` (as typed, `key=value`).

    Raises:
        UserError: If one changes what is learned: another loss, another student or seed is another run.
    """
    refusal = "resume: {} cannot be changed in a run that has begun; start a new run for it"
    changes = [override for override in overrides if not override.startswith(("resume=", "trust="))]
    return apply_overrides(read_config(path), changes, allowed=CHANGEABLE, refusal=refusal)


def discard(path: Path) -> None:
    """Remove by name what a run that was refused has written, and its folder if nothing is left in it.

    What was in the folder before stays, whoever made it, and so does the folder of a run that goes on.
    """
    before = _before.pop(path.absolute(), None)
    if before is None or not is_first_rank() or any((path / name).exists() for name in (LAST, PREVIOUS, METRICS)):
        return
    remove_partial(path)
    for file in path.iterdir():
        made_here = file.name in (CONFIG, _log_file()) or file.name.startswith("events.out.tfevents.")
        if made_here and file.name not in before:
            file.unlink(missing_ok=True)
    discard_if_empty(path)


def discard_if_empty(path: Path) -> None:
    """Remove the folder of a run that never began, if it is empty."""
    with suppress(OSError):
        path.rmdir()
