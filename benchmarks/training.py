"""Whole epochs of training: what distilling costs, and what the trainer adds."""

import torch

from benchmarks import loops
from benchmarks.result import Result
from benchmarks.setting import Setting
from benchmarks.timing import in_turns
from kd_lightning.config import build
from kd_lightning.teachers.cache.cached import CachedTeacher


def warm(setting: Setting) -> CachedTeacher:
    """A teacher whose answers to the epoch that is timed are all known."""
    cfg = setting.config()
    data = build(cfg.data, "data")
    data.setup()
    teacher = setting.cached_teacher(data)
    loops.ours(setting, cfg, teacher)
    return teacher


def _seconds(setting: Setting, teacher: object, *overrides: str) -> float:
    clock = loops.ours(setting, setting.config(*overrides), teacher)
    return clock.seconds / clock.images


def trainer_overhead(setting: Setting) -> list[Result]:
    """Our step / a hand-written loop's, with the same student, answers, batches, precision and optimizer."""
    teacher, cfg = warm(setting), setting.config()
    answers = teacher.whole_epoch(torch.device("cpu"))
    assert answers is not None
    losses: dict[str, float] = {}

    def ours() -> float:
        clock = loops.ours(setting, cfg, teacher)
        losses["ours"] = clock.loss
        return clock.seconds / clock.images

    def by_hand() -> float:
        seconds, losses["by hand"] = loops.by_hand(setting, cfg, answers)
        return seconds

    ratio = in_turns(ours, by_hand, setting.many)
    apart = abs(losses["ours"] - losses["by hand"]) / abs(losses["by hand"])
    step = 1000 * ratio.b * setting.batch
    note = f"a step takes {step:.1f} ms by hand; the last losses differ by {apart:.0e}"
    met = ratio.median <= 1.03 and apart <= 1e-5
    return [Result.of("trainer_overhead", ratio, "≤ 1.03", met, note)]


def cache_ratio(setting: Setting) -> list[Result]:
    """Distillation with a warm cache / plain training; and with the live teacher / with the warm cache."""
    teacher, live = warm(setting), setting.live_teacher()
    ratio = in_turns(lambda: _seconds(setting, teacher), lambda: _seconds(setting, None, "loss=ce"), setting.many)
    online = in_turns(lambda: _seconds(setting, live), lambda: _seconds(setting, teacher), setting.repeats)
    return [
        Result.of("cache_ratio", ratio, "≤ 1.03", ratio.median <= 1.03, ratio.rates()),
        Result.of("online_ratio", online, "reported", None, online.rates()),
    ]


def cold_ratio(setting: Setting) -> list[Result]:
    """An epoch whose answers are all asked before its first step, and written / the same with the live teacher."""
    if setting.quick:
        return []
    live = setting.live_teacher()

    def cold() -> float:
        data = build(setting.config().data, "data")
        data.setup()
        teacher = setting.cached_teacher(data)
        return _seconds(setting, teacher) + teacher.seconds_ahead / setting.images

    ratio = in_turns(cold, lambda: _seconds(setting, live), setting.repeats)
    return [Result.of("cold_ratio", ratio, "reported", None, ratio.rates())]


def naive_ratio(setting: Setting) -> list[Result]:
    """The textbook's loop / ours with a warm cache."""
    teacher = warm(setting)
    ratio = in_turns(lambda: loops.textbook(setting), lambda: _seconds(setting, teacher), setting.repeats)
    target = 8 if setting.accelerator == "gpu" else 4
    return [Result.of("naive_ratio", ratio, f"≥ {target}", ratio.median >= target, ratio.rates())]
