"""How long the students of a sweep will train, guessed from a few steps of each on random images."""

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial

import torch
from omegaconf import DictConfig

from kd_lightning.config import build
from kd_lightning.data.images.resident_module import ResidentDataModule
from kd_lightning.models import create_model
from kd_lightning.utils import hardware

STEPS = 2  # timed, after one that is not
DECIDING = ("model", "trainer", "data", "experiment")  # groups that change what a step or an epoch is
DECIDING_KEYS = ("data.", "trainer.", "model.student_")


def seconds_of_training(config: DictConfig, jobs: Sequence[Sequence[str]], swept: AbstractSet[str]) -> float | None:
    """Seconds of all `jobs` (overrides as typed), without teachers, validation and tests.

    None where it cannot be known: one of the keys that are `swept` changes what a step or an epoch is.

    Raises UserError for what would stop the first run.
    """
    if any(key in DECIDING or key.startswith(DECIDING_KEYS) for key in swept):
        return None
    data = build(config.data, "data")
    if not isinstance(data, ResidentDataModule):
        return None  # the number of images is known only after a look at all folders
    images = data.train_size or data.total - data.val_size
    total = 0.0
    known: dict[str, float] = {}
    for job in jobs:
        values = dict(override.lstrip("+~").partition("=")[::2] for override in job)
        name = values.get("model.student", config.model.student)
        if name not in known:
            known[name] = _seconds_per_image(config, data, name)
        total += known[name] * images * config.trainer.max_epochs
    return total


def _seconds_per_image(config: DictConfig, data: ResidentDataModule, student: str) -> float:
    accelerator = hardware.resolve_accelerator(config.trainer.accelerator)
    device = torch.device({"gpu": "cuda"}.get(accelerator, accelerator))
    half = hardware.resolve_precision(config.trainer.precision, accelerator) == "bf16-mixed"
    model = create_model(student, data.num_classes, image_size=data.image_size, key="model.student")
    model = model.to(device).to(memory_format=torch.channels_last).train()
    x = torch.randn(data.batch_size, 3, data.image_size, data.image_size, device=device)
    step = partial(_step, model, x.to(memory_format=torch.channels_last), half)
    step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / (STEPS * data.batch_size)


def _step(model: torch.nn.Module, x: torch.Tensor, half: bool) -> None:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        loss = model(x).float().square().mean()
    loss.backward()
    loss.item()  # waits for the device
