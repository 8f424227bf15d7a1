"""Messages of a sweep before it starts and when it ends. Named in conf/train.yaml, so its imports are small."""

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from kd_lightning.runs.command import Sweep

ASSUMED_SPREAD = 0.4  # points of accuracy; ResNet-8 and ResNet-20 on CIFAR-10 have 0.3 to 0.5
_BESIDE = ("seed", "model.student", "loss", "model.teacher", "teacher_stage")
"""Beginnings of swept keys that leave one baseline for all settings, or give each student its own."""


class SweepReport(Callback):
    """Announces a Hydra multirun, and compares its runs when it ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        from kd_lightning.runs.command import Command
        from kd_lightning.utils.console import say

        Command().sweep = _sweep(config)
        if words := announcement(config):
            say(words)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from kd_lightning.runs.command import Command

        Command().sweep = None
        compare_finished(Path(config.hydra.sweep.dir))


def compare_finished(folder: Path) -> None:
    """Compare the finished runs of a sweep, if there are any."""
    from kd_lightning import runs
    from kd_lightning.report.folders import compare
    from kd_lightning.utils.distributed import is_first_rank

    if is_first_rank() and any(runs.is_finished(path) for path in runs.below(folder)):
        compare([folder])


def _sweep(config: DictConfig) -> "Sweep":
    """Return what differs between the runs, and how many they are."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    from kd_lightning.runs.command import Sweep

    overrides = _overrides(config)
    decides = not config.hydra.sweeper._target_.endswith(".BasicSweeper")
    swept = [o.get_key_element() for o in overrides if o.is_sweep_override()]
    keys = [*(str(key) for key in config.hydra.sweeper.params or {}), *swept]
    count = None if decides else len(BasicSweeper.split_arguments(overrides, None)[0])
    in_turn = config.hydra.launcher._target_.endswith(".BasicLauncher")
    return Sweep(tuple(dict.fromkeys(keys)), count, str(config.hydra.sweep.dir), in_turn)


def _overrides(config: DictConfig) -> "list[Override]":
    from hydra.core.override_parser.overrides_parser import OverridesParser

    typed = [*(f"{k}={v}" for k, v in (config.hydra.sweeper.params or {}).items()), *config.hydra.overrides.task]
    return OverridesParser.create().parse_overrides(typed)


def announcement(config: DictConfig) -> str:
    """Return runs, epochs, what is finished, the smallest gain that will show, and how to go on.

    A sweeper that decides as it goes is told what its runs cannot show.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    from kd_lightning import runs

    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return "power: a search with one seed a setting shows no gain; train the best one and loss=ce with 3 or more"
    overrides = _overrides(config)
    [jobs] = BasicSweeper.split_arguments(overrides, None)
    typed = {o.get_key_element(): o for o in overrides}  # what is typed replaces what the experiment sweeps
    swept = {key for key, o in typed.items() if o.is_sweep_override()}
    words = [f"{len(jobs)} run{'s' * (len(jobs) != 1)}"]
    if not swept & {"trainer", "trainer.max_epochs", "experiment"}:
        each = config.trainer.max_epochs
        words[0] += f" of {each} epoch{'s' * (each != 1)}"
        words[0] += f", {len(jobs) * each:,} epochs in all" if isinstance(each, int) else ""
        if str(config.model.teacher_weights) in ("auto", "imagenet") and ("loss" in swept or not _is_plain(config)):
            words.append(f"a teacher that is not kept yet takes {config.teacher_stage.max_epochs} more")
    folder = Path(config.hydra.sweep.dir)
    finished = [path for path in runs.below(folder) if runs.is_finished(path)]
    if finished:
        one = len(finished) == 1
        there = "finished run lies there already and is" if one else "finished runs lie there already and are"
        words.append(f"{len(finished)} {there} not run again")
    power = _power(overrides, len(jobs), finished)
    return f"sweep: {'; '.join(words)}. After a stop, the same command goes on with hydra.sweep.dir={folder}\n{power}"


def _power(overrides: "list[Override]", jobs: int, finished: list[Path]) -> str:
    from kd_lightning.utils.power import smallest_gain
    from kd_lightning.utils.statistics import TOO_FEW

    counts = {o.get_key_element(): len(_options(o)) for o in overrides}
    seeds = counts.get("seed", 1)
    # each student, and each budget, has a baseline of its own
    apart = math.prod(n for key, n in counts.items() if key == "model.student" or not key.startswith(_BESIDE))
    settings = max(jobs // (seeds * apart), 1)
    spread, source = _spread(finished), "as among the finished runs"
    if spread is None:
        spread, source = ASSUMED_SPREAD, "an assumption: that of small ResNets on CIFAR-10"
    losses = next((_options(o) for o in reversed(overrides) if o.get_key_element() == "loss"), [])
    others = max(settings - ("ce" in losses), 1)
    gain = smallest_gain(seeds, spread, others)
    if gain is None:
        return f"power: {seeds} {'seed' if seeds == 1 else 'seeds'} cannot show a gain; {TOO_FEW} are the fewest"
    compared = f"{others} setting{'s' * (others > 1)} compared with a baseline"
    return (
        f"power: with {seeds} seeds and {compared}, a true gain of {gain:.2f} points is found in 4 of 5 such sweeps "
        f"(standard deviation over seeds {spread:.2f} points, {source})"
    )


def _options(override: "Override") -> list[str]:
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [str(override.value())]


def _is_plain(config: DictConfig) -> bool:
    from kd_lightning.report.groups import BASELINE

    return bool(config.loss._target_ == BASELINE)


def _spread(finished: list[Path]) -> float | None:
    """Return the usual standard deviation over seeds, in points, of the settings that are finished so far."""
    from kd_lightning import runs
    from kd_lightning.report.comparison import compare_runs
    from kd_lightning.utils.checks import UserError
    from kd_lightning.utils.power import usual_spread

    found = []
    for path in finished:
        with suppress(UserError):  # the comparison will say what is wrong with it
            found.append(runs.read(path))
    if not found:
        return None
    return usual_spread({str(i): result.test for i, result in enumerate(compare_runs(found).results)})
