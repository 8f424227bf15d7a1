"""Arguments of Lightning's Trainer: those that a user may set, and those that a run decides itself."""

import inspect

REFUSED = {
    "callbacks": "callbacks have a group of their own: callbacks=early_stopping, or +callbacks.mine={_target_: …}",
    "logger": "loggers have a group of their own: logger=csv, logger=[tensorboard,csv], or +logger.mine={_target_: …}",
    "default_root_dir": "all files go to the run directory, hydra.run.dir",
    "enable_checkpointing": "checkpoints are what is tested at the end; they are always written",
    "num_sanity_val_steps": "the teacher is measured on the whole validation split instead",
    "inference_mode": "metrics live on from validation to training, which inference mode forbids",
    "use_distributed_sampler": "each process takes its own share of the data already",
    "barebones": "it forbids the checkpoints that are tested at the end; for speed use logger=none",
    "limit_predict_batches": "nothing is predicted in a training; see kd_lightning.predict",
    "model_registry": "checkpoints stay in the run directory",
}
"""Arguments of Lightning's Trainer that a run decides itself, and why."""


def arguments() -> list[str]:
    """Return the names of those that a user may set."""
    import lightning.pytorch as pl  # takes seconds

    return [name for name in inspect.signature(pl.Trainer).parameters if name not in REFUSED]
