"""Keys and flags that nothing reads: one line with the nearest that there is."""

import difflib
import sys
from collections.abc import Iterator

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.config import CONF_DIR, Config
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.trainer_arguments import REFUSED, arguments


def joined(text: str) -> str:
    """Return what Hydra or OmegaConf said as one line, without repeats and noise."""
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
        return joined(text.replace(f"Could not override '{key}'.", f"{key} cannot be set so."))
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
