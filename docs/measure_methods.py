"""Cost of a training step with each preset, relative to `kd`: `python docs/make_methods.py --measure`."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from omegaconf import OmegaConf

from kd_lightning.config import CONF_DIR, build
from kd_lightning.losses import Distillation, Method, Networks
from kd_lightning.models import create_model
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.models.probe import Probe
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.types import Batch, StudentCard
from kd_lightning.utils import hardware

TEACHER, STUDENT, BATCH, REPEATS = "resnet56", "resnet20", 64, 5
INPUTS, SAMPLES = {"num_classes": 10, "image_size": 32}, 50_000


def stepper(preset: str) -> Callable[[], None]:
    """Return a function that makes one training step with nets and parameters of its own; schedules at their end."""
    node = OmegaConf.load(CONF_DIR / "loss" / f"{preset}.yaml")
    method: Method = build(OmegaConf.masked_copy(node, [key for key in node if key != "fusion"]), "loss")
    loss = Distillation(method)
    student, model = (create_model(name, **INPUTS).to(memory_format=torch.channels_last) for name in (STUDENT, TEACHER))
    card = StudentCard(STUDENT, {}, [str(i) for i in range(INPUTS["num_classes"])], INPUTS, {})
    x = torch.zeros(2, 3, 32, 32)
    teacher_probe = Probe(model.eval().requires_grad_(False), x) if loss.needs_teacher else None
    loss.prepare(Networks(Probe(student, x), teacher_probe, SAMPLES, lambda: create_model(STUDENT, **INPUTS), card))
    teacher = LiveTeacher(model, loss.teacher_layers) if loss.needs_teacher else None
    student = loss.wrap_student(student)
    method.set_epoch(1000)
    extract = FeatureExtractor(student, loss.student_layers)
    parameters = [*student.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    y = torch.randint(10, (BATCH,), generator=generator)
    batch = Batch(x, y, torch.arange(BATCH))

    def step() -> None:
        outputs = extract(batch.x)
        terms = loss(outputs, teacher(batch) if teacher else None, batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()

    return step


def measure(presets: Sequence[str]) -> dict[str, Any]:
    """Return the costs: the median over `REPEATS` of (a step with the preset) / (one with `kd` just before)."""
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
    """Return the CPU time of one step in seconds, in which other work on the machine does not count."""
    start = time.process_time()
    step()
    return time.process_time() - start
