"""Train a student. `python -m kd_lightning.train model.teacher=resnet50 loss.temperature=4`."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kd_lightning import runs
from kd_lightning.cli import clear_errors, fail
from kd_lightning.config import CONF_DIR
from kd_lightning.runs import claims
from kd_lightning.runs.lock import Busy, alone
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say


def _train_or_go_on(cfg: DictConfig, run: Any, out: Path) -> tuple[dict[str, Any], DictConfig]:
    """Train a new run, go on with one that was stopped, or take one that is finished.

    Returns its metrics and its configuration.
    """
    resume = cfg.resume is not None
    if resume:
        if run.mode != RunMode.RUN:
            raise UserError("resume goes on with one run; leave out -m and what makes a sweep")
        cfg = claims.resumed_config(Path(cfg.resume), list(run.overrides.task))
    elif run.mode == RunMode.MULTIRUN and claims.holds(out, cfg):  # the same sweep, once more
        if runs.is_finished(out):
            say(f"finished before, not run again: {out}")
            return runs.read(out).metrics, cfg
        resume = True
    from kd_lightning.training.run import train  # torch takes seconds to import
    from kd_lightning.utils.distributed import repeat_this_job_only

    with repeat_this_job_only(out):
        return train(cfg, out, resume), cfg


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def _main(cfg: DictConfig) -> float:
    run = HydraConfig.get()
    out = Path(os.path.relpath(run.runtime.output_dir))
    try:
        with alone(out):
            metrics, cfg = _train_or_go_on(cfg, run, out)
    except (UserError, OmegaConfBaseException) as e:
        claims.discard_if_empty(out)
        if isinstance(e, Busy) and run.mode == RunMode.MULTIRUN:  # the same sweep twice at once: they share its runs
            say(f"not started here: {e}")
            return math.nan
        status = fail(e)
        if run.mode == RunMode.RUN:
            raise SystemExit(status) from e  # not through Hydra, which would print its own words too
        raise  # the sweep goes on with its other jobs, and ends with this error
    if run.mode == RunMode.RUN:
        from kd_lightning.training.summary import result_table

        say(result_table(cfg, metrics, out))
    return _selected_accuracy(metrics)


def _selected_accuracy(metrics: dict[str, Any]) -> float:
    """Return what a sweeper may optimize: the deployed student's accuracy on validation, where there is any."""
    student = metrics["student"][metrics["select"]]
    return float(student.get("val", student["test"])["accuracy"])


def main() -> None:
    """The console script `kd-train`."""
    with clear_errors():
        # argparse takes no flag between overrides, where people write `-m` and `--config-dir`
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda arg: "=" in arg and not arg.startswith("-"))
        resume = next((arg.partition("=")[2] for arg in sys.argv[1:] if arg.startswith("resume=")), "")
        if resume not in ("", "null"):  # the same folder again, before Hydra makes a new one
            runs.read_config(Path(resume))
            sys.argv.append(f"hydra.run.dir={resume}")
        _main()


if __name__ == "__main__":
    main()
