"""Calibration of the deployed student: one temperature for its probabilities, fitted on validation samples."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from kd_lightning.data.loader import eval_order
from kd_lightning.data.module import DataModule, Split
from kd_lightning.distiller import Distiller
from kd_lightning.utils.calibration import calibrated_scores, fit_temperature


def calibrate(trainer: pl.Trainer, distiller: Distiller, data: DataModule) -> dict[str, Any] | None:
    """Fit the temperature that minimizes the NLL on validation samples (arXiv 1706.04599, section 4.2).

    The predicted classes stay the same. Runs on this process alone, over whole splits.

    Returns:
        `temperature`, and `val` and `test` with the calibrated `nll`, `ece` and `brier`; None without validation.
    """
    if not data.sizes["val"]:
        return None
    logits, y = _answers(trainer, distiller, data, "val")
    temperature = fit_temperature(logits, y)
    scores = {"val": calibrated_scores(logits, y, temperature)}
    scores["test"] = calibrated_scores(*_answers(trainer, distiller, data, "test"), temperature)
    return {"temperature": temperature} | scores


@torch.no_grad()
def _answers(trainer: pl.Trainer, distiller: Distiller, data: DataModule, split: Split) -> tuple[Tensor, Tensor]:
    """Return the student's logits `[N, C]` and the labels `[N]`, on the CPU."""
    source, logits, labels = data.splits[split], [], []
    distiller.to(trainer.strategy.root_device).eval()
    with trainer.precision_plugin.forward_context():
        for batch in source.batches(eval_order(len(source)), data.eval_batch_size, data.seed, 0, distiller.device):
            x = trainer.precision_plugin.convert_input(batch.x)
            logits.append(distiller(x).float().cpu())
            labels.append(batch.y.cpu())
    return torch.cat(logits), torch.cat(labels)
