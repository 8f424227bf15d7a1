"""What a command may change in the configuration of a finished run."""

from omegaconf import DictConfig, OmegaConf

from kd_lightning.config import CONF_DIR
from kd_lightning.utils.checks import UserError, choice

CHANGEABLE = (
    "data",
    "data.root",
    "data.num_workers",
    "data.verify",
    "data.eval_batch_size",
    "model.teacher_weights",
    "teacher_stage.dir",
    "trainer.accelerator",
)
"""Where things lie and how fast they are read; any other key would make another experiment of it."""


def overridden(config: DictConfig, overrides: list[str]) -> DictConfig:
    """Return `config` changed by `key=value`; `data=NAME` takes the whole group. Raises UserError for other keys."""
    config = config.copy()
    groups_first = sorted(overrides, key=lambda override: not override.startswith("data="))
    other_data = any(override.startswith("data=") for override in overrides)
    for override in groups_first:
        key, _, value = override.partition("=")
        if key == "data":
            known = sorted(p.stem for p in (CONF_DIR / "data").glob("*.yaml"))
            config.data = OmegaConf.load(CONF_DIR / "data" / f"{choice('data', value, known)}.yaml")
        elif key in CHANGEABLE or (other_data and key.startswith("data.")):
            config.merge_with_dotlist([override])
        else:
            raise UserError(f"{override} cannot be changed in an evaluation; what can: {', '.join(CHANGEABLE)}")
    return config
