"""Train a student. `python -m kd_lightning.train model.teacher=resnet50 loss.temperature=4`."""

import hashlib
import json
import math
import os
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_lightning import runs
from kd_lightning.cli import clear_errors, disk_error, fail
from kd_lightning.config import CONF_DIR
from kd_lightning.config_path import check_config_path, trusting_typed
from kd_lightning.report.sweep import compare_finished
from kd_lightning.runs import claims, names
from kd_lightning.runs.command import Command
from kd_lightning.runs.lock import Busy, alone
from kd_lightning.training.tasks import one_task
from kd_lightning.unknown_keys import check_flags, check_read
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import brief, say
from kd_lightning.utils.distributed import end_with_the_first, is_first_rank, repeat_this_job_only
from kd_lightning.utils.names import slug
from kd_lightning.utils.quiet import quiet
from kd_lightning.utils.signals import Stopped
from kd_lightning.utils.startup import import_from_here, quick_imports
from kd_lightning.utils.trust import names_own_code, trusting

READY = {"hydra/sweeper=optuna": "hydra/sweeper=optuna_accuracy"}
"""Configurations of conf/hydra/ in place of a plugin's own; that one of Optuna would minimize the accuracy."""


def _train_or_go_on(cfg: DictConfig, run: Any, out: Path) -> tuple[dict[str, Any], DictConfig]:
    """Train a new run, go on with one that was stopped, or take one that is finished.

    Returns its metrics and its configuration.
    """
    check_read(cfg)
    cfg = one_task(cfg)
    resume = cfg.resume is not None
    trusted = trusting_typed(cfg, run, resume)
    if not resume and (cfg.model.chain is not None or cfg.model.generations is not None):
        with quick_imports():
            from kd_lightning.training.chain import train_chain
            from kd_lightning.training.processes import ending_children

        with repeat_this_job_only(out), trusted, ending_children(), brief(run.mode == RunMode.MULTIRUN):
            return train_chain(cfg, out)
    if resume:
        if run.mode != RunMode.RUN:
            raise UserError("resume goes on with one run; leave out -m and what makes a sweep")
        cfg = claims.resumed_config(Path(cfg.resume), list(run.overrides.task))
    if run.mode == RunMode.MULTIRUN:  # the same sweep, once more
        state = claims.state(out, cfg)
        if state == "finished":
            say(f"finished before, not run again: {out}")
            return runs.read(out).metrics, cfg
        resume = state == "begun"
    if not resume and is_first_rank():
        claims.check_place(out)
    with quick_imports():  # torch takes seconds to import
        from kd_lightning.training.processes import ending_children
        from kd_lightning.training.run import train

    with repeat_this_job_only(out), trusted, ending_children(), brief(run.mode == RunMode.MULTIRUN):
        return train(cfg, out, resume), cfg


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def _main(cfg: DictConfig) -> float:
    run = HydraConfig.get()
    out = Path(os.path.relpath(run.runtime.output_dir))
    try:
        with alone(out):
            metrics, cfg = _train_or_go_on(cfg, run, out)
    except Stopped:
        if run.mode == RunMode.MULTIRUN:
            _say_how_a_sweep_goes_on(here=True)
        elif (out / runs.CONFIG).is_file():
            say(f"interrupted; go on with: {_again(out)}")
        elif runs.below(out):
            say("interrupted; the same command goes on with this chain")
        else:
            claims.discard_if_empty(out)
        raise
    except (UserError, OmegaConfBaseException, OSError) as e:
        claims.discard_if_empty(out)
        told = disk_error(e) if isinstance(e, OSError) else e
        if isinstance(e, Busy) and run.mode == RunMode.MULTIRUN:  # the same sweep twice at once: they share its runs
            say(f"not started here: {e}")
            return math.nan
        status = fail(told)
        if run.mode == RunMode.RUN:
            raise SystemExit(status) from e  # not through Hydra, which would print its own words too
        raise told from e  # the sweep goes on with its other jobs, and ends with this error
    if run.mode == RunMode.RUN and runs.is_finished(out):
        from kd_lightning.training.summary import result_table

        say(result_table(cfg, metrics))
        if any(out.glob("events.out.tfevents.*")):
            say(f"Curves: tensorboard --logdir {shlex.quote(str(out))}")
    return _selected_accuracy(metrics)


def _say_how_a_sweep_goes_on(here: bool) -> None:
    """Say the command that goes on with an interrupted sweep: once, in the process that runs all of it.

    Args:
        here: This process runs a job of it. With a launcher, that is not the process that was given the command.
    """
    command = Command()
    if command.sweep is None or command.sweep.in_turn != here:
        return
    typed = [word for word in command.words if not word.startswith("hydra.sweep.dir=")]
    folder = names.override("hydra.sweep.dir", os.path.relpath(command.sweep.folder))
    say(f"interrupted; go on with: {shlex.join(['python', '-m', 'kd_lightning.train', *typed, folder])}")


def _again(out: Path) -> str:
    """Return the command that goes on with an interrupted run."""
    trust = " trust=true" * names_own_code(_plain(runs.read_config(out)))
    return f"python -m kd_lightning.train {names.resume_word(out)}{trust}"


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config)
    return plain


def _chain_folder(words: list[str]) -> str | None:
    """Return the folder of a chain: the same for the same command, which therefore goes on; None if none is typed."""
    keys = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in words if "=" in word}
    typed = [keys[key] for key in ("model.chain", "model.generations") if keys.get(key) not in (None, "null")]
    if not typed or "resume" in keys or "hydra.run.dir" in keys:
        return None
    counted = sorted(f"{key}={value}" for key, value in keys.items() if key not in runs.INCIDENTAL)
    what = typed[0] if "model.chain" in keys else f"born-again-{typed[0]}"
    name = slug(re.sub(r"[\[\]{}'\" ]+", "", what).replace(",", "-"))[:80]
    return f"outputs/chains/{name}-{hashlib.sha256(json.dumps(counted).encode()).hexdigest()[:8]}"


def _selected_accuracy(metrics: dict[str, Any]) -> float:
    """Return what a sweeper may optimize: the deployed student's accuracy on validation; NaN if nothing is held out."""
    student = metrics["student"][metrics["select"]]
    return float(student["val"]["accuracy"]) if "val" in student else math.nan


def _resumed_folder(word: str) -> str:
    """Return the folder that `resume=…` names: as Hydra reads it, or where it cannot, as it stands."""
    typed = word.partition("=")[2]
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:
        return typed
    return value if isinstance(value, str) and not Path(typed).is_dir() else "" if value is None else typed


def main() -> None:
    """The console script `kd-train`."""
    with clear_errors():
        end_with_the_first()
        import_from_here()
        # argparse takes no flag between overrides, where people write `-m` and `--config-dir`
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda arg: "=" in arg and not arg.startswith("-"))
        Command().begin()
        quiet()
        sys.argv[1:] = [READY.get(word, word) for word in sys.argv[1:]]
        check_flags(sys.argv[1:])
        check_config_path(sys.argv[1:])
        for i, word in enumerate(sys.argv):
            if i and word.startswith("resume=") and (folder := _resumed_folder(word)):
                runs.read_config(Path(folder))
                claims.check_links(Path(folder))
                sys.argv[i] = names.override("resume", folder)
                sys.argv.append(names.override("hydra.run.dir", folder))  # before Hydra makes a new one
                break
        if chain := _chain_folder(sys.argv[1:]):
            sys.argv.append(names.override("hydra.run.dir", chain))
        with trusting():  # what the user typed; a resumed run decides for itself
            try:
                _main()
            except Stopped:
                _say_how_a_sweep_goes_on(here=False)
                raise
            except Exception:  # of one of its runs: Hydra raises it after the last one, and calls no callback then
                if sweep := Command().sweep:
                    with suppress(UserError):  # the run's own error says more
                        compare_finished(Path(sweep.folder))
                raise


if __name__ == "__main__":
    main()
