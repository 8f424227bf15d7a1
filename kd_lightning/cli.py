"""A user's mistake ends in one line and exit status 2; a traceback is kept for our own."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.checks import UserError, did_you_mean
from kd_lightning.config import CONF_DIR


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns what Hydra and our checks raise into one line on stderr."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing and exiting itself
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, PermissionError, NotADirectoryError) as e:
        sys.exit(fail(e))
    except KeyboardInterrupt:
        print("interrupted; go on with resume=<run directory>", file=sys.stderr)
        sys.exit(130)


def fail(e: Exception) -> int:
    """Prints the one line; returns the exit status."""
    print(f"error: {_message(e)}", file=sys.stderr)
    return 2


def _message(e: Exception) -> str:
    if isinstance(e, UserError):
        return str(e)
    if isinstance(e, OSError):
        return f"cannot write to {e.filename}: {e.strerror}; choose another hydra.run.dir"
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    if lines and lines[0].startswith("Could not override '"):
        key = lines[0].split("'")[1]
        return f"unknown key {key!r}{did_you_mean(key, _known_keys())}; --cfg job lists all keys"
    kept = [line for line in lines if not line.startswith(("full_key", "object_type", "See https", "reference_type"))]
    return " · ".join(kept)


def _known_keys() -> list[str]:
    """Every key of the configuration as the user's groups compose it, without their values."""
    groups = [arg for arg in sys.argv[1:] if "=" in arg and "." not in arg.split("=")[0] and "," not in arg]
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
