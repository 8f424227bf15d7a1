"""Whole sweeps: eight runs of a grid that share one cache."""

import time
import uuid
from dataclasses import replace

from benchmarks import loops
from benchmarks.result import Result
from benchmarks.setting import Setting
from kd_lightning.config import build

GRID = [(temperature, alpha) for temperature in (1, 2, 4, 8) for alpha in (0.5, 0.9)]


def sweep_ratio(setting: Setting) -> list[Result]:
    """Wall time of 8 trainings of a temperature × alpha grid with one cache, empty at first / 8 × one live training.

    Where s is a student's time and t its teacher's, that is (1 + 7·s / (s + t)) / 8 at best: the smaller the student,
    the more a sweep saves. So on a CPU a ResNet-8 is measured too.
    """
    if setting.quick:
        return [_row("sweep_ratio", setting)]
    # What each run does once should weigh as little as in real ones.
    setting = replace(setting, images=4 * setting.images)
    rows = [_row("sweep_ratio", setting)]
    if setting.accelerator == "cpu":
        rows.append(_row("sweep_ratio, resnet8", replace(setting, student="resnet8")))
    return rows


def _row(name: str, setting: Setting) -> Result:
    folder = setting.folder / uuid.uuid4().hex
    data = build(setting.config().data, "data")
    data.setup()

    def seconds(temperature: float, alpha: float, live: bool) -> float:
        start = time.perf_counter()
        teacher = setting.live_teacher() if live else setting.cached_teacher(data, folder)
        loops.ours(setting, setting.config(f"loss.temperature={temperature}", f"loss.alpha={alpha}"), teacher)
        return time.perf_counter() - start

    seconds(1, 0.5, live=True)  # what a process does once
    shared, live = 0.0, []
    for i, (temperature, alpha) in enumerate(GRID):
        shared += seconds(temperature, alpha, live=False)
        if i % 2 == 0:  # in between, so that both see the same machine
            live.append(seconds(temperature, alpha, live=True))
    whole = 8 * sum(live) / len(live)
    note = f"{shared:.1f} s against {whole:.1f} s; the first of the runs fills the table"
    return Result(name, shared / whole, "≤ 0.55", shared / whole <= 0.55, note)
