"""Commands that train a setting again, or add the baseline that a sweep lacks."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from kd_lightning.config import CONF_DIR, load_option
from kd_lightning.report.budgets import LENGTH
from kd_lightning.report.groups import Setting
from kd_lightning.runs.directory import Run
from kd_lightning.runs.names import override

_TRAIN = ("python", "-m", "kd_lightning.train")
_TARGETS = {group: f"{group}._target_" for group in ("data", "loss", "optimizer", "scheduler")}
_TARGETS |= {"teacher_stage": "teacher_stage.optimizer._target_"}
"""Group → the key that tells its options' classes apart."""
_LEFT_OUT = tuple(key for key in runs.INCIDENTAL if key != "data.root")


def repeat_command(run: Run) -> str:
    """Return the command that trains a run again, in a new folder, from its own config.yaml."""
    words = [*_TRAIN, "--config-path", str(run.path.resolve()), "--config-name", runs.CONFIG]
    return shlex.join([*words, "hydra.output_subdir=null", "hydra.run.dir=outputs/train/again"])


def train_command(setting: Setting) -> str:
    """Return the command of a setting's first run as a user would type it; `repeat_command` if words cannot say it."""
    wanted = _values(setting.first.config)
    words = _overrides(wanted)
    if words is None or _values(_composed(tuple(words))) != wanted:
        return repeat_command(setting.first)
    return shlex.join([*_TRAIN, *words])


def baseline_command(setting: Setting, seeds: Iterable[str], name: str) -> str | None:
    """Return the one command that adds `loss=ce` with the student, budget and seeds of `setting` to its sweep folder.

    The budget is equal in images seen: plain training sees labelled samples only, so it needs more epochs where they
    are few.

    Args:
        setting: One with any other loss.
        seeds: Seeds to train with.
        name: Beginning of the new folders' names.

    Returns:
        None where no training sample has a label, or the configuration holds code or groups that are not
        kd_lightning's own.
    """
    unread = ("loss.", "model.teacher", "teacher_stage.")
    values = {k: v for k, v in _values(setting.first.config).items() if not k.startswith(unread)}
    labels = setting.first.metrics.get("labels")
    if labels == 0:
        return None
    if labels and setting.images_seen and isinstance(values.get(LENGTH), int):
        values[LENGTH] = max(values[LENGTH], round(setting.images_seen / labels))
    words = _overrides(values)
    if words is None:
        return None
    words = [word for word in words if not word.startswith("seed=")]
    sweep = override("hydra.sweep.dir", setting.first.path.parent)
    folder = f"hydra.sweep.subdir={name}_${{seed}}"
    return shlex.join([*_TRAIN, "-m", *words, "loss=ce", f"seed={','.join(seeds)}", sweep, folder])


def _overrides(wanted: Mapping[str, Any]) -> list[str] | None:
    """Return the choices of groups, then the keys, that make the default configuration the wanted one."""
    words = [override("seed", wanted["seed"])]
    for group, target in _TARGETS.items():
        own = {k: v for k, v in wanted.items() if k.startswith(f"{group}.")}
        if not own:
            continue
        options = {name: _distance(own, flat, target) for name, flat in _options(group).items()}
        name = min(options, key=lambda name: options[name])
        if options[name][0]:
            return None  # a class, or a set of keys, of somebody else's
        words.append(f"{group}={name}")
    data = [word for word in words if word.startswith("data=")]
    defaults = [_values(_composed(tuple(chosen))) for chosen in ((), data)]
    words = [word for word in words if word in data or not _is_default(word, defaults[1])]
    words = [word for word in words if word not in data or not _is_default(word, defaults[0])]
    # The budget first: other keys follow some of these, as the teacher's seed may follow the student's.
    budget = [k for k in wanted if k.startswith(("data.", "model.", "trainer."))]
    for keys in (budget, list(wanted)):
        there = _values(_composed(tuple(words)))
        if any(key not in there and "_kwargs." not in key for key in keys):
            return None  # code or a logger of somebody else's
        words += [_assignment(k, wanted[k], k in there) for k in keys if k not in there or there[k] != wanted[k]]
    return words


def _is_default(word: str, default: Mapping[str, Any]) -> bool:
    group, _, name = word.partition("=")
    if group == "seed":
        return str(default["seed"]) == name
    return all(default.get(key) == value for key, value in _options(group)[name].items() if "${" not in str(value))


def _distance(own: Mapping[str, Any], option: Mapping[str, Any], target: str) -> tuple[bool, int]:
    is_other = own[target] != option.get(target) or not own.keys() <= option.keys()
    return is_other, sum(option.get(key) != value for key, value in own.items())


@cache
def _options(group: str) -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted((CONF_DIR / group).glob("*.yaml")):
        flat = runs.flatten(load_option(group, file.stem), group)
        found[file.stem] = {key: value for key, value in flat.items() if key not in _LEFT_OUT}
    return found


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    """Compose the configuration without Hydra's global state, which belongs to the sweep that may be running."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.types import RunMode

    loader = ConfigLoaderImpl(create_config_search_path(str(CONF_DIR)))
    config = loader.load_configuration("train", list(overrides), RunMode.RUN)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config


def _values(config: DictConfig) -> dict[str, Any]:
    flat: dict[str, Any] = runs.flatten(OmegaConf.to_container(config, resolve=True))
    return {key: value for key, value in flat.items() if key not in _LEFT_OUT}


def _assignment(key: str, value: Any, is_there: bool) -> str:
    key = key if is_there else f"+{key}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{key}=[{','.join(map(_word, value))}]"
    return override(key, _word(value))


def _word(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
