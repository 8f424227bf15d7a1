"""Loggers and callbacks that the user adds to our own, from their groups of the configuration."""

import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, ListConfig, OmegaConf

from kd_lightning.config import build
from kd_lightning.training.averaging import Careful
from kd_lightning.utils.annotations import check_annotations
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import check_targets, is_trusted

PACKAGES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "CometLogger": "comet_ml", "NeptuneLogger": "neptune"}
"""Class → package that it needs and kd_lightning does not bring."""


def check_extras(cfg: DictConfig, accelerator: str) -> None:
    """Find a logger or callback that cannot be made, before anything is trained. Raises UserError."""
    for _ in build_callbacks(cfg.get("callbacks"), accelerator):
        pass
    for key, node in _nodes(cfg.get("logger"), "logger"):
        _check_package(node, key, PACKAGES)
        _check_origin(node, key)
        _check_values(node, key)


def build_callbacks(node: Any, accelerator: str) -> list[pl.Callback]:
    """Return the callbacks of the group `callbacks`. Raises UserError."""
    callbacks = []
    for key, one in _nodes(node, "callbacks"):
        _check_package(one, key, {"DeviceStatsMonitor": "psutil"} if accelerator == "cpu" else {})
        _check_values(one, key)
        callback = build(one, key)
        if not isinstance(callback, pl.Callback):
            raise UserError(
                f"{key}: {one._target_} must be a lightning.pytorch.Callback, got {type(callback).__name__}"
            )
        if isinstance(callback, WeightAveraging) and not isinstance(callback, Careful):
            raise UserError(
                f"{key}: {one._target_} would replace the checkpoints that are tested after the training; use "
                "callbacks=ema, or inherit from kd_lightning.training.averaging.Careful, too"
            )
        callbacks.append(callback)
    return callbacks


def build_loggers(node: Any, out: Path) -> list[Logger]:
    """Return the loggers of the group `logger`, TensorBoard's first; where none is named, that is the only one.

    A logger that has a `save_dir` and is given none writes to the run directory `out`, and is called after it.

    Raises:
        UserError: If one of them cannot be made.
    """
    loggers = []
    for key, one in _nodes(node, "logger"):
        _check_package(one, key, PACKAGES)
        _check_origin(one, key)
        logger = build(_with_places(one, out), key)
        if not isinstance(logger, Logger):
            raise UserError(f"{key}: {one._target_} must be a Lightning logger, got {type(logger).__name__}")
        loggers.append(logger)
    return sorted(loggers, key=lambda logger: not isinstance(logger, TensorBoardLogger))


def _check_origin(node: DictConfig, key: str) -> None:
    """Raise UserError if a logger that a file may have named is other code, or would write outside the run directory.

    Lightning's CSVLogger removes the `metrics.csv` of another run, wherever its `name` and `version` lead.
    """
    values: Any = OmegaConf.to_container(node, resolve=True)
    check_targets(values, key)
    for name in ("name", "version") if not is_trusted() else ():
        if not re.fullmatch(r"[\w-]*", str(values.get(name, ""))):
            raise UserError(f"{key}.{name}: {values[name]!r}, named by a file, leads out of the run directory")


def _with_places(node: DictConfig, out: Path) -> DictConfig:
    plain: Any = OmegaConf.to_container(node, resolve=True)
    node = OmegaConf.create(plain)  # of its own: as a part of the configuration it would take no new keys
    try:
        takes = inspect.signature(hydra.utils.get_object(node._target_)).parameters
    except (ImportError, ValueError, TypeError):  # `build` says what is wrong
        return node
    if "save_dir" in takes and (node.get("save_dir") is None or not is_trusted()):
        node.save_dir = str(out)
    for name in ("name", "run_name"):
        if name in takes and name in node and node[name] is None:
            node[name] = out.name
    return node


def _nodes(node: Any, group: str) -> Iterator[tuple[str, DictConfig]]:
    if isinstance(node, str | int | float | ListConfig):
        raise UserError(f"{group} must be classes by their names, as +{group}.mine={{_target_: …}}, got {node!r}")
    for name, one in (node or {}).items():
        if one is None:
            continue  # logger.csv=null turns one off
        if not isinstance(one, DictConfig) or "_target_" not in one:
            raise UserError(f"{group}.{name} must name a class, as +{group}.{name}={{_target_: my_package.Mine}}")
        yield f"{group}.{name}", one


def _check_values(node: DictConfig, key: str) -> None:
    """Raise UserError if a node's class cannot be imported, or annotates other types than those of its values."""
    values: Any = OmegaConf.to_container(node, resolve=True)
    check_targets(values, key)
    try:
        target = hydra.utils.get_object(node._target_)
    except (ImportError, ValueError) as e:
        raise UserError(f"{key}._target_: {' '.join(str(e).split())}") from e
    check_annotations(target, {name: value for name, value in values.items() if not name.startswith("_")}, key)


def _check_package(node: DictConfig, key: str, packages: dict[str, str]) -> None:
    package = packages.get(str(node._target_).rpartition(".")[2])
    if package and importlib.util.find_spec(package) is None:
        raise UserError(f"{key} needs the package {package}, which is not installed: pip install {package}")
