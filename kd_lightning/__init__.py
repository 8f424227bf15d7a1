"""Knowledge distillation with PyTorch Lightning and Hydra."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from kd_lightning.deploy.loader import Model


def load(path: str | Path) -> Model:
    """The student in a run directory or a file that `kd_lightning.export` wrote, ready to answer.

    >>> labels, probabilities = kd_lightning.load("outputs/train/<run>")(image)

    `image` is a PIL image of any size, an array or tensor of uint8 pixels `[H, W, 3]` or `[N, H, W, 3]` (or channels
    first), a list of these, or a batch of floats `[N, 3, H, W]`, normalized, for a model that does not take pixels.
    `labels` are N names, `probabilities` a tensor `[N, C]`. Raises UserError.
    """
    from kd_lightning.deploy.loader import open_model  # torch takes seconds to import

    return open_model(path)
