"""What a training step costs with each preset, relative to `kd`: `python docs/make_methods.py --measure`."""

import statistics
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import hydra
import torch

from kd_lightning.config import CONF_DIR
from kd_lightning.models import create_model
from kd_lightning.models.hooks import Tap
from kd_lightning.teachers import LiveTeacher
from kd_lightning.training.objective import build_loss, prepare_loss
from kd_lightning.types import Batch
from kd_lightning.utils import hardware

TEACHER, STUDENT, BATCH, REPEATS = "resnet56", "resnet20", 64, 5
DATA = SimpleNamespace(image_size=32, num_classes=10, sizes={"train": 50_000})


def stepper(preset: str) -> Callable[[], None]:
    """One training step as the Distiller makes it, of nets and parameters of its own; all schedules at their end."""
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", [f"loss={preset}", f"model.teacher={TEACHER}", f"model.student={STUDENT}"])
    loss: Any = build_loss(cfg.loss, cfg.model)
    student, model = (
        create_model(name, DATA.num_classes, image_size=32).to(memory_format=torch.channels_last)
        for name in (STUDENT, TEACHER)
    )
    layers = prepare_loss(cfg, loss, student, model if loss.needs_teacher else None, DATA)
    teacher = LiveTeacher(model, layers) if loss.needs_teacher else None
    student = loss.deployed(student) if hasattr(loss, "deployed") else student
    if hasattr(loss, "set_epoch"):
        loss.set_epoch(1000)
    tap = Tap(student, loss.student_layers)
    parameters = [*student.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    y = torch.randint(10, (BATCH,), generator=generator)
    batch = Batch(x, y, torch.arange(BATCH))

    def step() -> None:
        outputs = tap(batch.x)
        terms = loss(outputs, teacher(batch) if teacher else None, batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()

    return step


def measure(presets: Sequence[str]) -> dict[str, Any]:
    """The median over `REPEATS` of (a step with the preset) / (one with `kd` just before), in turns: A B A C A D …"""
    torch.set_num_threads(1)
    steps = {preset: stepper(preset) for preset in presets}
    for step in steps.values():
        step()  # the first is slower: memory is asked for
    ratios: dict[str, list[float]] = {preset: [] for preset in presets}
    seconds: list[float] = []
    for _ in range(REPEATS):
        for preset, step in steps.items():
            reference = duration(steps["kd"])
            seconds.append(reference)
            ratios[preset].append(duration(step) / reference)
    spread = [statistics.quantiles(r, n=4)[2] - statistics.quantiles(r, n=4)[0] for r in ratios.values()]
    about = hardware.describe("cpu")
    return {
        "what": (
            f"a training step (teacher and student forward, loss, backward, optimizer) over one of `kd`, {TEACHER} → "
            f"{STUDENT}, {BATCH} images of 32 × 32 and 10 classes, teacher run live, not cached, fp32; median of "
            f"{REPEATS} pairs in turns, CPU time of one thread. `kd` takes {statistics.median(seconds):.2f} s; the "
            f"quartiles of a ratio lie {statistics.median(spread):.2f} apart (median over the methods), on a machine "
            "shared with other work."
        ),
        "device": about["device"],
        "torch": about["versions"]["torch"],
        "lightning": about["versions"]["lightning"],
        "command": "python docs/make_methods.py --measure",
        "cost": {preset: round(statistics.median(r), 3) for preset, r in ratios.items()},
    }


def duration(step: Callable[[], None]) -> float:
    """Seconds of CPU time of one step: what other work takes from the machine meanwhile does not count."""
    start = time.process_time()
    step()
    return time.process_time() - start
