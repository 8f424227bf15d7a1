"""Names of losses: the file in `conf/loss` that holds a run's values."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from kd_lightning import runs
from kd_lightning.config import CONF_DIR

TARGET = "loss._target_"


def preset_names(values: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Return the preset of each flat configuration; None for all of a class if one of them has no preset.

    A grid over KD's temperature thus keeps its temperatures, even where one cell is the preset.
    """
    names = [_presets().get(_key(flat)) for flat in values]
    unknown = {flat.get(TARGET) for flat, name in zip(values, names, strict=True) if name is None}
    return [None if flat.get(TARGET) in unknown else name for flat, name in zip(values, names, strict=True)]


@cache
def _presets() -> dict[str, str]:
    files = sorted((CONF_DIR / "loss").glob("*.yaml"))
    return {_key(runs.flatten(OmegaConf.to_container(OmegaConf.load(file)), "loss")): file.stem for file in files}


def _key(flat: Mapping[str, Any]) -> str:
    return str(sorted((k, str(plain(v))) for k, v in flat.items() if k.startswith("loss.")))


def plain(value: Any) -> Any:
    """Return a number as a float, so that 4 equals 4.0."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
