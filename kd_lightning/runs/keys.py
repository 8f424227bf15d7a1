"""Keys of a run's configuration, as one flat dictionary, and which of them change no number."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

INCIDENTAL = (
    "data.root",
    "data.num_workers",
    "data.verify",
    "data.digest_cache",
    "model.teacher_cache",
    "teacher_stage.dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.keep_epochs",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "resume",
    "trust",
)
"""Keys that change none of the numbers that a run ends with."""
_NEUTRAL: dict[str, Any] = {
    "data.labels": None,
    "model.teacher_views": None,
    "model.chain": None,
    "model.generations": None,
    "loss.label_smoothing": 0,
    "teacher_stage.label_smoothing": 0,
    "trainer.fast_dev_run": False,
    "trainer.overfit_batches": 0,
    "trainer.keep_epochs": [],
}


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration as one dictionary, `loss.temperature` → 4.0; lists stay values.

    Loggers change no number and are left out, and so are keys that older runs lack, where they are off.
    """
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node)
    if not isinstance(node, dict):
        return {prefix: node}
    parts = [flatten(child, f"{prefix}.{name}" if prefix else str(name)) for name, child in node.items()]
    flat = {key: value for part in parts for key, value in part.items()}
    return {k: v for k, v in flat.items() if not (k.startswith("logger.") or (k in _NEUTRAL and v == _NEUTRAL[k]))}
