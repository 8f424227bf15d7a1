"""Changes that a command may make in the configuration of a finished run."""

from omegaconf import DictConfig

from kd_lightning.config import apply_overrides

CHANGEABLE = (
    "data",
    "data.root",
    "data.unlabeled_root",
    "data.labels",
    "data.num_workers",
    "data.verify",
    "data.digest_cache",
    "data.eval_batch_size",
    "model.teacher_weights",
    "teacher_stage.dir",
    "trainer.accelerator",
)
"""Keys of places and of reading speed; any other key would make it another experiment."""


def overridden(config: DictConfig, overrides: list[str]) -> DictConfig:
    """Return `config` changed by `key=value`; `data=NAME` takes the whole group. Raises UserError for other keys."""
    refusal = f"{{}} cannot be changed in an evaluation; what can: {', '.join(CHANGEABLE)}"
    return apply_overrides(config, overrides, allowed=CHANGEABLE[1:], groups=CHANGEABLE[:1], refusal=refusal)
