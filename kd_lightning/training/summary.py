"""The lines and the small table around a run on the terminal."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.table import Table
from torch import nn

from kd_lightning.models import count_macs, count_parameters
from kd_lightning.runs.command import Command
from kd_lightning.runs.names import student_name, teacher_name
from kd_lightning.training.build import Experiment
from kd_lightning.training.forecast import duration
from kd_lightning.utils.console import is_brief


def model_size(models: Sequence[nn.Module], inputs: Sequence[Any]) -> dict[str, int]:
    """Return parameters, and multiply-accumulates of one sample, of all `models` together.

    Args:
        models: The networks.
        inputs: Inputs of one sample for each of them.
    """
    return {
        "parameters": sum(count_parameters(model) for model in models),
        "macs": sum(count_macs(model, x) for model, x in zip(models, inputs, strict=True)),
    }


def work(run: Experiment) -> float:
    """Return multiply-accumulates of a whole training: three passes of the student, one of each teacher."""
    one = 3 * count_macs(run.student, run.data.example(1))
    one += sum(
        count_macs(teacher.model, teacher.example(run.data, 1)) for teacher in run.teachers if teacher.has_network
    )
    return float(one) * run.data.sizes["train"] * run.trainer.max_epochs


def heading(cfg: DictConfig, run: Experiment) -> str:
    """Return one line on what will be trained on what, with the values that were resolved for this machine."""
    sizes, trainer = run.data.sizes, run.trainer
    student = student_name(cfg.model.student, cfg.model.student_kwargs)
    who = f"{teacher_name(cfg)} → {student}" if run.teachers else student
    counts = " / ".join(f"{sizes[split]:,} {split}" for split in ("train", "val", "test"))
    precision = f"{trainer.precision}{', compiled' * (run.compile is not None)}"
    method, epochs = type(run.loss.method).__name__, trainer.max_epochs
    devices = len(trainer.devices) if isinstance(trainer.devices, ListConfig) else trainer.devices
    work = f"{method} · {run.data.name} ({counts}) · {epochs} epoch{'s' * (epochs != 1)}"
    if not epochs:
        work = f"{run.data.name} ({counts}) · measured, not trained"
    return f"{who} · {work} · {precision} on {devices} × {trainer.accelerator} · seed {cfg.seed}"


def result_line(metrics: dict[str, Any], out: Path, is_teacher: bool = False) -> str:
    """Return what a run reached, in one line, and how fast it was in a second one."""
    scores = ", ".join(f"{k} {v['test']['accuracy']:.2%}" for k, v in metrics["student"].items() if isinstance(v, dict))
    took = f" in {duration(metrics['seconds'])}" if metrics["epochs"] else ""
    if is_brief() and is_teacher:
        return f"teacher: test accuracy {scores}{took} · {out}"
    if is_brief():  # one line for each run of a sweep, whose folder is told before
        return f"{_of_sweep()}{out.name}: test accuracy {scores}{took}"
    line = f"done{took}: test accuracy {scores} · {out}"
    if not metrics["time_shares"] or not metrics["images_per_second"]:
        return line
    shares = ", ".join(f"{name} {share:.0%}" for name, share in metrics["time_shares"].items())
    return f"{line}\n{metrics['images_per_second']:,.0f} images/s; of the time {shares}"


def _of_sweep() -> str:
    """Return `run 2 of 8, ` in a sweep."""
    job = HydraConfig.get() if HydraConfig.initialized() else None
    sweep = Command().sweep
    if sweep is None or job is None or OmegaConf.is_missing(job.job, "num"):
        return ""
    count = f" of {sweep.runs}" if sweep.runs else ""
    return f"run {job.job.num + 1}{count}, "


def result_table(cfg: DictConfig, metrics: dict[str, Any], out: Path) -> Table:
    """Return teacher and student side by side, what the run cost, and where everything lies."""
    student, teacher = metrics["student"], metrics.get("teacher")
    table = Table(caption_justify="left")
    table.add_column("model")
    for column in ("params", "MACs", "val acc", "test acc", "NLL", "ECE"):
        table.add_column(column, justify="right")
    if teacher:
        table.add_row(f"teacher {teacher_name(cfg)}", *_size(teacher), *_scores(teacher))
    for name in ("last", "best"):
        if name in student:
            size = _size(student) if name == "last" else ("", "")
            chosen = " (deployed)" if name == metrics["select"] and "best" in student else ""
            label = f"student {student_name(cfg.model.student, cfg.model.student_kwargs)}, {name}{chosen}"
            table.add_row(label, *size, *_scores(student[name]))
    table.caption = "\n".join(_notes(metrics, student, teacher, out))
    return table


def _notes(metrics: dict[str, Any], student: dict[str, Any], teacher: dict[str, Any] | None, out: Path) -> list[str]:
    deployed = student[metrics["select"]]
    lines = []
    if teacher:
        gap = 100 * (deployed["test"]["accuracy"] - teacher["test"]["accuracy"])
        fewer, cheaper = teacher["parameters"] / student["parameters"], teacher["macs"] / student["macs"]
        size = f"has {fewer:.1f}× fewer parameters and {cheaper:.1f}× fewer MACs, " if teacher["parameters"] else ""
        where = "above" if gap > 0 else "below"
        lines.append(
            f"The student {size}is {abs(gap):.2f} points "
            f"{where} its teacher and agrees with it on {deployed['test']['agreement']:.1%} of the test samples. "
            "What distilling gained is told by the same command with loss=ce."
        )
    speed = f", {metrics['images_per_second']:,.0f} images/s" if metrics["images_per_second"] else ""
    if metrics["epochs"]:
        many = "s" * (metrics["epochs"] != 1)
        lines.append(
            f"{metrics['epochs']} epoch{many} in {duration(metrics['seconds'])}{speed} on {metrics['device']}."
        )
    lines.append(f"Curves: tensorboard --logdir {shlex.quote(str(out))}")
    return lines


def _size(model: dict[str, Any]) -> tuple[str, str]:
    return f"{model['parameters'] / 1e6:.2f} M", f"{model['macs'] / 1e6:,.1f} M"


def _scores(scores: dict[str, Any]) -> list[str]:
    test = scores["test"]
    val = f"{scores['val']['accuracy']:.2%}" if "val" in scores else "–"
    return [val, f"{test['accuracy']:.2%}", f"{test['nll']:.3f}", f"{test['ece']:.3f}"]
