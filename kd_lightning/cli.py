"""A user's mistake ends in one line and exit status 2; a traceback is kept for our own."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from kd_lightning import runs
from kd_lightning.config import CONF_DIR, load_option
from kd_lightning.unknown_keys import joined, unknown_key
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.console import details_once
from kd_lightning.utils.signals import piped, stoppable


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what Hydra, our checks and the disk raise into one line on stderr, and signals into exit statuses."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing and exiting itself
    try:
        with stoppable(), piped(), details_once():
            yield
    except (UserError, HydraException, OmegaConfBaseException) as e:
        sys.exit(fail(e))
    except OSError as e:
        sys.exit(fail(disk_error(e)))
    except RuntimeError as e:
        sys.exit(fail(launcher_error(e)))
    except (ValueError, TypeError) as e:
        sys.exit(fail(group_error(e)))
    except KeyboardInterrupt:
        sys.exit(130)


class LostRun(UserError):
    """A process that ran a job of a sweep ended before its time."""

    status = 1


DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


def disk_error(e: OSError) -> UserError:
    """Return what a full, read-only or forbidden place on the disk means to the user; raise any other error again."""
    frames = [frame.name for frame in traceback.extract_tb(e.__traceback__)]
    if next((name for name in reversed(frames) if name != "mkdir"), "").endswith("run_job"):  # Hydra makes the folder
        return UserError(f"cannot write to {e.filename}: {e.strerror}; choose another hydra.run.dir")
    if e.errno not in DISK:
        raise e
    where = f" {e.filename}" if e.filename else ""
    full = e.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "free some space, then go on with resume=<run directory>" if full else "choose another folder or its rights"
    return UserError(f"cannot write or read{where}: {e.strerror}; {what}")


NEEDS = "this launcher or sweeper needs a package: pip install -c constraints.txt {}"


def launcher_error(e: RuntimeError) -> UserError:
    """Return what an error of Hydra's launchers and sweepers means to the user; raise any other error again."""
    if isinstance(e, BrokenExecutor):
        return LostRun(
            "a process of this sweep was killed (SIGKILL is often the system's, out of memory: lower "
            "hydra.launcher.n_jobs); the same command goes on"
        )
    if found := re.match(r"Unknown plugin class : 'hydra_plugins\.(\w+)", str(e)):
        return UserError(NEEDS.format(found[1].replace("_", "-")))
    if str(e).startswith('Could not detect "srun"'):
        return UserError("hydra/launcher=submitit_slurm: there is no srun here; start it on a machine of the cluster")
    raise e


def group_error(e: Exception) -> UserError:
    """Return what an option that is no name, as `data=0` or `data=[1,2]`, means to the user; raise any other error."""
    if str(e).startswith("Only one of --"):  # flags of Hydra that exclude each other
        return UserError(str(e))
    *_, (frame, _) = traceback.walk_tb(e.__traceback__)
    if frame.f_globals.get("__name__") != "hydra._internal.defaults_list":  # it takes names only, and checks few
        raise e
    for group, _, name in (word.lstrip("+").partition("=") for word in sys.argv[1:]):
        if (CONF_DIR / group).is_dir() and "." not in group:
            for one in name.strip("[]").split(","):  # a list or a sweep has several
                try:
                    load_option(group, one)
                except UserError as unknown:
                    return unknown
    raise e


def fail(e: Exception) -> int:
    """Print the one line; return the exit status: 2, or 3 for a training that diverged."""
    print(f"error: {_message(e)}", file=sys.stderr)
    return e.status if isinstance(e, UserError) else 2


def _message(e: Exception) -> str:
    if isinstance(e, UserError):
        return str(e)
    if isinstance(e, MissingConfigException) and e.missing_cfg_file == "hydra/sweeper/optuna":
        return NEEDS.format("hydra-optuna-sweeper")
    if isinstance(e, MissingConfigException) and e.missing_cfg_file and e.options:
        group, _, option = str(e.missing_cfg_file).rpartition("/")
        return f"unknown option {group}={option}{did_you_mean(option, e.options)}; there are {', '.join(e.options)}"
    if isinstance(e, MissingConfigException) and (found := re.search(r"Could not load '(\w+)/(.+)'", str(e))):
        try:
            load_option(found[1], found[2])  # one of a list, as of callbacks=[ema,early_stoping]
        except UserError as unknown:
            return str(unknown)
    if isinstance(e, OverrideParseException):
        return f"cannot read {e.override!r}: {joined(str(e))}; write key=value, or \"key='…'\" for special characters"
    if str(e).startswith("Could not override '"):
        return unknown_key(str(e).split("'")[1], str(e))
    told, key = joined(f"{e}\n{e.__cause__ or ''}"), e.full_key if isinstance(e, OmegaConfBaseException) else None
    if isinstance(e, InterpolationResolutionError):  # found where it is used, as in the run's name
        key = next((word for word in sys.argv[1:] if "${" in word), key)
    return f"{key}: {told}" if key and key not in told else told


def expand(words: list[str]) -> tuple[list[Path], list[str]]:
    """Return run directories (a folder stands for the finished runs below it) and overrides `key=value`, as typed.

    Raises:
        UserError: If there is no run.
    """
    overrides = [word for word in words if "=" in word and not os.path.exists(word)]
    paths: list[Path] = []
    for folder in (Path(word) for word in words if word not in overrides):
        below = [] if (folder / runs.CONFIG).is_file() else [p for p in runs.below(folder) if runs.is_finished(p)]
        paths += below or [folder]
    if not paths:
        raise UserError("give run directories, such as outputs/train/<run>, or folders of them")
    return paths, overrides
