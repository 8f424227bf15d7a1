"""What a sweep will cost, told before it starts, as far as the configuration knows it."""

from contextlib import suppress
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from kd_lightning import runs
from kd_lightning.report.cost import seconds_of_training
from kd_lightning.training.summary import duration
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.statistics import mean_std


def announcement(config: DictConfig) -> str:
    """Runs, epochs, what is finished already, and how to go on; empty for a sweeper that decides as it goes."""
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return ""
    typed = [*(f"{k}={v}" for k, v in (config.hydra.sweeper.params or {}).items()), *config.hydra.overrides.task]
    overrides = OverridesParser.create().parse_overrides(typed)
    [jobs] = BasicSweeper.split_arguments(overrides, None)
    swept = {o.get_key_element() for o in overrides if o.is_sweep_override()}
    words = [f"{len(jobs)} runs"]
    if not swept & {"trainer", "trainer.max_epochs", "experiment"}:
        each = config.trainer.max_epochs
        words[0] += f" of {each} epochs" + (f", {len(jobs) * each:,} in all" if isinstance(each, int) else "")
        if str(config.model.teacher_weights) in ("auto", "imagenet"):
            words.append(f"a teacher that is not kept yet takes {config.teacher_stage.max_epochs} more")
    folder = Path(config.hydra.sweep.dir)
    if finished := [path for path in runs.below(folder) if runs.is_finished(path)]:
        words.append(f"{len(finished)} are finished and not run again")
        words += _time_left(finished, len(jobs))
    else:
        with suppress(UserError):  # the first run will say what is wrong
            if seconds := seconds_of_training(config, jobs, swept):
                words.append(f"the students' steps take about {duration(seconds)} here, by a try on random images")
    return f"sweep: {'; '.join(words)}. After a stop, the same command goes on with hydra.sweep.dir={folder}"


def _time_left(finished: list[Path], jobs: int) -> list[str]:
    """Of the other jobs, at the pace of those that are finished."""
    seconds = []
    for path in finished:
        with suppress(UserError):  # the comparison will say what is wrong with it
            seconds.append(runs.read(path).metrics["seconds"])
    left = jobs - len(finished)
    return [f"the others train for about {duration(left * mean_std(seconds)[0])}"] if seconds and left > 0 else []
