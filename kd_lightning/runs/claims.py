"""Claims on run directories: a folder belongs to one run, from its first moment, and when it goes on."""

from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kd_lightning.runs.directory import (
    CONFIG,
    INCIDENTAL,
    LAST,
    flatten,
    is_finished,
    read,
    read_config,
    write_config,
)
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.distributed import is_first_rank

# Where files lie, and how long, fast and talkative a training is: what a run may change when it goes on.
CHANGEABLE = ("trainer.", "data.root", "data.num_workers", "data.verify", "model.teacher_weights", "teacher_stage.dir")


def claim(path: Path, config: DictConfig, resume: bool) -> Path | None:
    """Make `path` this run's own, or go on with the run in it.

    Returns:
        The checkpoint to go on from, if there is one.

    Raises:
        UserError: If `path` holds a run already (with `resume`: a finished one), or cannot be written.
    """
    if not is_first_rank():
        resume = resume or (path / LAST).is_file()  # as the first rank does, which began before
    elif not resume:
        _create(path, config)
    if not resume:
        return None
    if is_finished(path) and read(path).metrics["epochs"] >= config.trainer.max_epochs:
        raise UserError(f"resume: the run in {path} is finished; give it more epochs with trainer.max_epochs=…")
    if is_first_rank():
        write_config(path, config)
    last = path / LAST
    if not last.is_file():
        return None  # it was stopped before its first epoch ended
    import torch  # takes seconds, which `--help` need not wait for

    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except Exception as e:  # whatever a damaged zip or pickle raises
        raise UserError(f"resume: {last} is damaged ({str(e).splitlines()[0][:80]}); delete it to start anew") from e
    return last


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


def _create(path: Path, config: DictConfig) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_config(path, config, exclusive=True)  # fails if it exists: two runs can never share a folder
    except FileExistsError as e:
        raise UserError(f"{path} already holds a run; go on with resume={path} or choose another hydra.run.dir") from e
    except OSError as e:
        raise UserError(f"cannot write to the output folder {path}: {e.strerror}; choose another hydra.run.dir") from e


def resumed_config(path: Path, overrides: list[str]) -> DictConfig:
    """Return the configuration of the run in `path`, changed by `overrides` (as typed, `key=value`).

    Raises:
        UserError: If one changes what is learned: another loss, another student or seed is another run.
    """
    config = read_config(path)
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "resume":
            continue
        changed = config.copy()
        changed.merge_with_dotlist([f"{key.lstrip('+')}={value}"])
        if changed != config and not key.startswith(CHANGEABLE):
            raise UserError(f"resume: {override} cannot be changed in a run that has begun; start a new run for it")
        config = changed
    return config


def discard(path: Path) -> None:
    """Remove by name what a run that was refused has written, and its folder if nothing is left in it."""
    if not is_first_rank() or (path / LAST).is_file():
        return
    for file in (path / CONFIG, *path.glob("events.out.tfevents.*"), *path.glob("*.log")):
        file.unlink(missing_ok=True)
    discard_if_empty(path)


def discard_if_empty(path: Path) -> None:
    """Remove the folder of a run that never began, if it is empty."""
    with suppress(OSError):
        path.rmdir()
