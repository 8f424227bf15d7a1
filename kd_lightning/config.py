"""Typed run configuration, and the only place that turns configuration nodes into objects."""

import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import MISSING, DictConfig, OmegaConf

from kd_lightning.utils.checks import UserError, choice, did_you_mean
from kd_lightning.utils.trust import check_targets

HERE = Path(__file__).resolve().parent
CONF_DIR = next(p for p in (HERE / "conf", HERE.parent / "conf") if p.is_dir())  # installed wheel, checkout


@dataclass
class ModelConfig:
    student: str = MISSING
    student_kwargs: dict[str, Any] = field(default_factory=dict)
    student_pretrained: bool = False
    student_weights: Any = None
    chain: Any = None
    generations: Any = None
    teacher: Any = MISSING
    teacher_kwargs: Any = field(default_factory=dict)
    teacher_weights: Any = "auto"
    teacher_cache: str = "auto"
    teacher_cache_dtype: str = "auto"
    teacher_normalize: Any = None
    teacher_input_size: Any = None
    teacher_classes: Any = None
    teacher_views: Any = None
    teacher_weighting: Any = None
    teacher_calibration: Any = None


@dataclass
class TeacherStageConfig:
    dir: str = MISSING
    seed: int = MISSING
    max_epochs: int = MISSING
    label_smoothing: float = 0.0
    optimizer: Any = MISSING
    scheduler: Any = MISSING


@dataclass
class Config:
    """`Any` marks the groups whose keys are those of the object that they build."""

    data: Any = MISSING
    model: ModelConfig = MISSING
    loss: Any = field(default_factory=lambda: {"label_smoothing": 0.0})
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    logger: Any = field(default_factory=dict)
    callbacks: Any = field(default_factory=dict)
    teacher_stage: TeacherStageConfig = MISSING
    seed: int = 0
    compile: Any = "auto"
    select: str = "last"
    resume: str | None = None
    trust: bool = False


ConfigStore.instance().store(name="schema", node=Config)


def build(node: DictConfig, key: str, **kwargs: Any) -> Any:
    """Instantiate `node._target_`; `key` names the node in messages.

    Raises:
        UserError: If there is no such target, it does not take these arguments, or it refuses a value: a UserError of
            ours, any error of torch or Lightning. Outside `trusting()`, where a node may come from a file, also for a
            target that this package does not offer.
        Exception: Any other error inside our code or the user's, which is a fault that needs its traceback.
    """
    check_given(node, key)
    check_targets(OmegaConf.to_container(node, resolve=True), key)
    try:
        return hydra.utils.instantiate(node, _convert_="all", **kwargs)
    except Exception as e:  # Hydra 1.3 wraps the target's own error, 1.4 adds a note to it
        cause = (e.__cause__ or e) if isinstance(e, InstantiationException) else e
        if isinstance(cause, UserError):
            told = "".join(traceback.format_exception_only(e))  # with the notes
            raise UserError(_key_as_typed(str(cause), key, told)) from None
        if not isinstance(cause, InstantiationException) and not _is_refusal(cause):
            raise cause from None
        raise UserError(f"{key}: {_one_line(str(cause))}") from e


LIBRARIES = ("torch", "lightning")
"""Packages whose objects check the values that a user typed, with errors of any class."""


def _is_refusal(error: BaseException) -> bool:
    """Return whether a target did not take its arguments, or is a library's and refused a value."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    hydras = [i for i, module in enumerate(modules) if module.startswith("hydra.")]
    entered = modules[hydras[-1] + 1 :] if hydras else modules
    return not entered or entered[0].partition(".")[0] in LIBRARIES


def _key_as_typed(message: str, key: str, told: str) -> str:
    """A node inside another knows only its own names: `loss.temperature` of `loss.kd` is `loss.kd.temperature`."""
    found = re.search(r"full_key: (\S+)", told)
    inside = found[1].removeprefix(key).strip(".") if found else ""
    return message.replace(f"{key}.", f"{key}.{inside}.", 1) if inside and message.startswith(f"{key}.") else message


def check_given(node: DictConfig, key: str) -> None:
    """Raises UserError if a key below the node called `key` still waits for its value."""
    for name in sorted(OmegaConf.missing_keys(node)):  # `root`, or `data.root` if the node is part of a configuration
        name = f"{key}.{name.removeprefix(f'{key}.')}"
        raise UserError(f"{name} must be given: {name}=…")


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " · ".join(line for line in lines if not line.startswith("full_key"))


def apply_overrides(
    config: DictConfig,
    overrides: Iterable[str],
    *,
    allowed: Sequence[str],
    groups: Sequence[str] = (),
    refusal: str,
) -> DictConfig:
    """Return `config`, which was composed before, changed by overrides in the grammar of `kd_lightning.train`.

    An override that changes nothing is accepted whatever its key.

    Args:
        config: The configuration of a run; it stays as it is.
        overrides: `key=value` as typed; `+key=value` adds a key.
        allowed: Beginnings of the keys that may be changed.
        groups: Groups that `group=option` replaces as a whole, before any key; their keys may then be changed too.
        refusal: Message for any other key, with `{}` where the override goes.

    Raises:
        UserError: If an override cannot be read, or its key is unknown or may not be changed.
    """
    config, parser = config.copy(), OverridesParser.create()
    OmegaConf.set_struct(config, False)
    later = []
    for override in overrides:
        try:
            parsed = parser.parse_override(override)
        except HydraException:
            raise UserError(f"cannot read {override!r}; write key=value, or 'key=\"value\"' if it has = or (") from None
        key = parsed.key_or_group
        if parsed.is_delete() or parsed.is_sweep_override():
            raise UserError(f"{override}: give one value; keys cannot be removed here, nor swept over")
        if key in groups:
            config[key] = load_option(key, parsed.value())
            allowed = (*allowed, f"{key}.")
        else:
            later.append((override, key, parsed.value(), parsed.is_add() or parsed.is_force_add()))
    for override, key, value, is_new in later:
        if not (is_new or _has(config, key) or (CONF_DIR / key).is_dir()):
            raise UserError(f"unknown key {key!r}{did_you_mean(key, _keys(config))}")
        changed = config.copy()
        OmegaConf.update(changed, key, value, merge=True)
        if changed != config and not key.startswith(tuple(allowed)):
            raise UserError(refusal.format(override))
        config = changed
    return config


def load_option(group: str, name: Any) -> DictConfig:
    """Return the option `name` of a configuration group, such as `loss` and `kd`. Raises UserError if there is none.

    An option that chooses in other groups too, as `data=image_folder` does, gives the part of its own group; one that
    builds on another, as `data=digits_tasks` on `digits`, has the keys of both.
    """
    known = sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
    node = OmegaConf.load(CONF_DIR / group / f"{choice(group, name, known)}.yaml")
    assert isinstance(node, DictConfig)
    others = [one for one in node.pop("defaults", []) if isinstance(one, str) and one != "_self_"]
    own: Any = OmegaConf.merge(*(load_option(group, other) for other in others), node.get(group, node))
    return own


def _has(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in node.keys()  # noqa: SIM118 - `in node` is False for ???


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name, value in config.items_ex(resolve=False):
        key = prefix + str(name)
        yield key
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _keys(value, f"{key}.")
