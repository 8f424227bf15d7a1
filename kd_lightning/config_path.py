"""What a configuration of `--config-path` may build: its folder may be of unknown origin."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from kd_lightning import runs
from kd_lightning.config import CONF_DIR
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import trusting


def check_config_path(words: list[str]) -> None:
    """Raise UserError unless the configuration of `--config-path` is a run's, of which Hydra itself builds nothing."""
    typed, _ = get_args_parser().parse_known_args(words)
    if typed.config_path is None or "trust=true" in words:
        return
    folder = Path(__file__).parent / typed.config_path  # as Hydra reads it
    config = runs.read_config(folder, "--config-path")
    hydras = {"hydra", "defaults"} & {str(key) for key in config}
    if hydras or typed.config_name != runs.CONFIG or "@package" in (folder / runs.CONFIG).read_text(encoding="utf-8"):
        raise UserError(
            f"--config-path: {folder} is not the configuration of a run alone; if you trust its origin, add trust=true"
        )


def trusting_typed(cfg: DictConfig, hydra: Any, resume: bool = False) -> AbstractContextManager[None]:
    """Let what the user typed be built, and what a folder says only with `trust=true`.

    Args:
        cfg: The composed configuration.
        hydra: `HydraConfig.get()`.
        resume: The configuration is that of a run directory.
    """
    is_typed = any(word.lstrip("+").startswith("trust=") for word in hydra.overrides.task)
    trust = bool(cfg.trust) and is_typed  # what a folder says of itself does not count
    is_foreign = any(one.provider == "main" and Path(one.path) != CONF_DIR for one in hydra.runtime.config_sources)
    return trusting(trust or not (resume or is_foreign), programs=trust)
