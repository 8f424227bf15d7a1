"""The device on which the pixels of a data set lie during a training: `data.device`."""

import torch

from kd_lightning.utils.checks import UserError, choice
from kd_lightning.utils.console import say

PLACES = ("auto", "cpu", "cuda", "stream")
SHARE = 0.25  # of the device's free memory; the networks and their activations need the rest


class Placement:
    """One decision for all splits of a data set, made when the first batch is asked for and kept for the whole run.

    Free memory shrinks as a training goes on, so that a later answer might be another one.

    Args:
        wanted: `auto`, `cpu`, `cuda` or `stream` (in main memory, sent as bytes).
        size: Bytes of all splits together.

    Raises:
        UserError: If `wanted` is none of these, or `cuda` on a machine without.
    """

    def __init__(self, wanted: str, size: int) -> None:
        self.wanted, self.size = check_place(wanted), size
        self._decided: dict[torch.device, torch.device] = {}

    def home(self, device: torch.device) -> torch.device:
        """Return where the pixels lie whose batches are wanted on `device`. Raises UserError for an impossible cuda."""
        if device not in self._decided:
            self._decided[device] = place(self.wanted, self.size, device)
        return self._decided[device]


def check_place(wanted: str) -> str:
    """Return `wanted` if it is a place that this machine has. Raises UserError."""
    choice("data.device", wanted, PLACES)
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("data.device=cuda: no such device was found here; use auto, cpu or stream")
    return wanted


def place(wanted: str, size: int, device: torch.device) -> torch.device:
    """Return the home of `size` bytes of pixels whose batches are wanted on `device`.

    The home is `device` itself, where a batch is one gather, unless the pixels are to stay in main memory (`cpu`,
    `stream`), or `auto` finds them too large.

    Raises:
        UserError: For `cuda` where it cannot be.
    """
    if wanted in ("cpu", "stream") or device.type != "cuda":
        if wanted == "cuda":
            raise UserError(
                f"data.device=cuda, but the training runs on {device.type}; use auto or trainer.accelerator"
            )
        return torch.device("cpu")
    free = free_memory(device)
    if size <= SHARE * free:
        return device
    problem = f"{size / 1e9:,.1f} GB of pixels, and {free / 1e9:,.1f} GB free on {device}"
    if wanted == "cuda":
        raise UserError(f"data.device=cuda: {problem}, of which they may take a quarter; use stream")
    say(f"data: {problem}: they stay in main memory, and each batch is sent as bytes")
    return torch.device("cpu")


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a CUDA device, with those that torch's allocator has reserved and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
