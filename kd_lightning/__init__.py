"""Knowledge distillation with PyTorch Lightning and Hydra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from kd_lightning.deploy.loader import Model
    from kd_lightning.distiller import Distiller
    from kd_lightning.losses import (
        AB,
        CC,
        CE,
        CRD,
        CTKD,
        DIST,
        DKD,
        DML,
        FSP,
        FT,
        KD,
        MLLD,
        NKD,
        NST,
        OFD,
        PKT,
        RKD,
        RLD,
        SP,
        SRRL,
        VID,
        WSLD,
        Attention,
        Combination,
        FitNets,
        Hard,
        Method,
        ReviewKD,
        SimKD,
        TeacherFree,
    )

_LOSSES = (
    *("AB", "CC", "CE", "CRD", "CTKD", "DIST", "DKD", "DML", "FSP", "FT", "KD", "MLLD", "NKD", "NST", "OFD", "PKT"),
    *("RKD", "RLD", "SP", "SRRL", "VID", "WSLD", "Attention", "Combination", "FitNets", "Hard", "Method", "ReviewKD"),
    *("SimKD", "TeacherFree"),
)


def __getattr__(name: str) -> Any:
    """Import `Distiller` and the losses when they are first asked for: torch takes seconds to import."""
    if name == "Distiller":
        from kd_lightning.distiller import Distiller

        return Distiller
    if name in _LOSSES:
        from kd_lightning import losses

        return vars(losses)[name]
    raise AttributeError(f"module 'kd_lightning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["Distiller", "load", *_LOSSES]


def load(path: str | Path, calibrated: bool = True, trust: bool = False) -> Model:
    """Return the student of a run directory, or of a file that `kd_lightning.export` wrote, ready to answer.

    >>> labels, probabilities = kd_lightning.load("outputs/train/<run>")(image)

    `image` is a path or PIL image of any size, an array or tensor of uint8 pixels `[H, W, 3]` or `[N, H, W, 3]` (or
    channels first), a list of these, or a batch of floats `[N, 3, H, W]`, normalized, for a model that does not take
    pixels. A student of text takes a sentence or a list of them. One of recordings takes a file (.wav, .flac), an array
    `[L]` or `[N, L]` at its sample rate (floats in [−1, 1] or int16), or a list of these. One of another kind of data
    takes what its network takes. `labels` are N names, `probabilities` a tensor `[N, C]`. A student of several tasks
    gives a dictionary with both for each task.

    Args:
        path: The run directory or file.
        calibrated: Divide logits by the temperature that was fitted on validation, if the model has one.
        trust: Import code that the run or file names, such as a network of your own.

    Raises:
        UserError: If there is no model, here or when it is called with something else.
    """
    from kd_lightning.deploy.loader import open_model  # torch takes seconds to import

    return open_model(path, calibrated, trust)
