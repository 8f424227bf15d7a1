"""Where the pixels of a data set lie during a training: `data.device`."""

import torch

from kd_lightning.utils.checks import UserError, choice
from kd_lightning.utils.console import say

PLACES = ("auto", "cpu", "cuda", "stream")
SHARE = 0.25  # of the device's free memory; the networks and their activations need the rest


def check_place(wanted: str) -> str:
    """`auto`, `cpu`, `cuda` or `stream`. Raises UserError for anything else, or `cuda` on a machine without."""
    choice("data.device", wanted, PLACES)
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("data.device=cuda: no such device was found here; use auto, cpu or stream")
    return wanted


def place(wanted: str, size: int, device: torch.device) -> torch.device:
    """The home of a split of `size` bytes whose batches are wanted on `device`.

    On `device` itself, where a batch is one gather, unless it is to stay in main memory (`cpu`, `stream`), or `auto`
    finds it too large. Raises UserError for `cuda` where it cannot be.
    """
    if wanted in ("cpu", "stream") or device.type != "cuda":
        if wanted == "cuda":
            raise UserError(
                f"data.device=cuda, but the training runs on {device.type}; use auto or trainer.accelerator"
            )
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(device)
    if size <= SHARE * free:
        return device
    problem = f"{size / 1e9:,.1f} GB of pixels, and {free / 1e9:,.1f} GB free on {device}"
    if wanted == "cuda":
        raise UserError(f"data.device=cuda: {problem}, of which they may take a quarter; use stream")
    say(f"data: {problem}: they stay in main memory, and each batch is sent as bytes")
    return torch.device("cpu")
