"""A user's mistake ends in one line and exit status 2; a traceback is kept for our own."""

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from kd_lightning import runs
from kd_lightning.config import CONF_DIR, Config, load_option
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.console import details_once
from kd_lightning.utils.signals import piped, stoppable
from kd_lightning.utils.trainer_arguments import REFUSED, arguments


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
        return f"cannot read {e.override!r}: {_joined(str(e))}; write key=value, or \"key='…'\" for special characters"
    if str(e).startswith("Could not override '"):
        return unknown_key(str(e).split("'")[1], str(e))
    told, key = _joined(f"{e}\n{e.__cause__ or ''}"), e.full_key if isinstance(e, OmegaConfBaseException) else None
    if isinstance(e, InterpolationResolutionError):  # found where it is used, as in the run's name
        key = next((word for word in sys.argv[1:] if "${" in word), key)
    return f"{key}: {told}" if key and key not in told else told


def _joined(text: str) -> str:
    noise = ("full_key", "object_type", "See https", "reference_type")
    lines = dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())
    return " · ".join(line for line in lines if not line.startswith(noise))


def check_flags(words: list[str]) -> None:
    """Raise UserError for a flag that Hydra does not have: keys are written without dashes."""
    for word in get_args_parser().parse_known_args(words)[1]:
        if word.startswith("-"):
            key, _, value = word.lstrip("-").partition("=")
            raise UserError(f"unknown flag {word}; keys are written without dashes: {key}={value or '…'}")


def check_read(config: DictConfig) -> None:
    """Raise UserError for a key beside the groups, as of `+epochs=3`, that nothing reads."""
    text = OmegaConf.to_yaml(config)
    for key in map(str, config):
        if key not in vars(Config()) and f"${{{key}" not in text:  # others may take their value from it
            raise UserError(unknown_key(key, ""))


def unknown_key(key: str, text: str) -> str:
    """Return a line on a key that the configuration does not have, with the nearest one that it has.

    Args:
        key: The key.
        text: What Hydra said of it.
    """
    known = [k for k in _known_keys() if not k.rpartition(".")[2].startswith("_")]
    group = key.partition(".")[0]
    swept = next((arg for arg in sys.argv[1:] if arg.startswith(f"{group}=") and "," in arg), None)
    if key in known and swept:
        return f"unknown key {key!r} in one of {swept}; in a sweep every run needs it"
    if key in known:  # a dictionary without the key that was typed inside it
        return _joined(text.replace(f"Could not override '{key}'.", f"{key} cannot be set so."))
    if told := _missing_plus(key, known):
        return told
    if near := _near(key, known):
        return f"unknown key {key!r}{near}; --cfg job lists all keys"
    parent, _, _ = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    choice = next((arg for arg in _typed_groups() if arg.startswith(f"{parent}=")), parent)
    has = f"{choice or 'the configuration'} has {', '.join(siblings)}" if siblings else "--cfg job lists all keys"
    return f"unknown key {key!r}; {has}"


def _missing_plus(key: str, known: list[str]) -> str:
    """Return a line on a key that only a `+` or an option brings: `trainer.min_epochs`, `callbacks.ema.decay`."""
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    if group == "trainer":
        if rest in REFUSED:
            return f"{key}: {REFUSED[rest]}"
        return f"unknown key {key!r}; the Trainer has it, but it is not listed: +{key}=…" if rest in arguments() else ""
    if group not in ("callbacks", "logger") or not rest or f"{group}.{name}" in known:
        return ""
    if (CONF_DIR / group / f"{name}.yaml").is_file():
        return f"unknown key {key!r}; it comes with {group}={name}"
    return f"unknown key {key!r}; one of your own is added by +{group}.{name}={{_target_: my_package.Mine}}"


def _near(key: str, known: list[str]) -> str:
    """Return `"; did you mean 'optimizer.lr'?"` for `lr`, or an empty string if no key is near."""
    parent, _, name = key.rpartition(".")
    beside = [k for k in known if k.rpartition(".")[0] == parent] if parent else known
    ends = {k.rpartition(".")[2]: k for k in sorted(beside, key=len, reverse=True)}  # the shortest key of each name
    if name not in ends and not (parent and ends) and (near := did_you_mean(key, known)):
        return near
    close = difflib.get_close_matches(name, ends, n=1)
    return f"; did you mean {ends[close[0]]!r}?" if close else ""


def _typed_groups() -> list[str]:
    """Return the words `group=option` that were typed."""
    pairs = [(arg, arg.lstrip("+").partition("=")[0]) for arg in sys.argv[1:] if "=" in arg and "," not in arg]
    return [arg for arg, group in pairs if "." not in group and (arg[0] != "+" or (CONF_DIR / group).is_dir())]


def _known_keys() -> list[str]:
    """Every key of the configuration as the user's groups compose it, without their values."""
    groups = _typed_groups()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        try:
            config = compose("train", overrides=[g for g in groups if not g.startswith("-")])
        except (HydraException, OmegaConfBaseException):
            config = compose("train")
    return list(_flatten(config))


def _flatten(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, node):
        yield prefix + key
        child = node._get_node(key)  # not node[key], which raises for a missing or uninterpolated value
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_none():
            yield from _flatten(child, f"{prefix}{key}.")


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
