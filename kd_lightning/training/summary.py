"""The lines and the small table around a run on the terminal."""

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
from kd_lightning.types import part
from kd_lightning.utils.console import is_brief
from kd_lightning.utils.names import task_name, tasks_in


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
    student += " (pretrained)" * cfg.model.student_pretrained
    who = f"{teacher_name(cfg)} → {student}" if run.teachers else student
    counts = " / ".join(f"{sizes[split]:,} {split}" for split in ("train", "val", "test"))
    precision = f"{trainer.precision}{', compiled' * (run.compile is not None)}"
    method, epochs = run.loss.name, trainer.max_epochs
    devices = len(trainer.devices) if isinstance(trainer.devices, ListConfig) else trainer.devices
    work = f"{method} · {run.data.name} ({counts}) · {epochs} epoch{'s' * (epochs != 1)}"
    if not epochs:
        work = f"{run.data.name} ({counts}) · measured, not trained"
    return f"{who} · {work} · {precision} on {devices} × {trainer.accelerator} · seed {cfg.seed}"


def result_line(metrics: dict[str, Any], out: Path, is_teacher: bool = False) -> str:
    """Return what a run reached, in one line, and how fast it was in a second one."""
    student = metrics["student"]
    told = {name: _accuracies(student[name]["test"]) for name in ("last", "best") if name in student}
    if len(told) > 1:
        told[metrics["select"]] += " (deployed)"
    scores = ", ".join(f"{name} {words}" for name, words in told.items())
    took = f" in {duration(metrics['seconds'])}" if metrics["epochs"] else ""
    if is_brief() and is_teacher:
        return f"teacher: test accuracy {scores}{took} · {out}"
    if is_brief():  # one line for each run of a sweep, whose folder is told before
        return f"{_of_sweep()}{out.name}: test accuracy {scores}{took}"
    line = f"done{took}: test accuracy {scores} · {out}"
    if not metrics["time_shares"] or not metrics["images_per_second"]:
        return line
    shares = ", ".join(f"{name} {share:.0%}" for name, share in metrics["time_shares"].items())
    return f"{line}\n{metrics['images_per_second']:,.0f} samples/s; of the time {shares}"


def _accuracies(test: dict[str, float]) -> str:
    """Return `98.10%`, or `object 81.20%, kind 97.30%` of several tasks."""
    words = [(task, test[task_name(task, "accuracy")]) for task in tasks_in(test)]
    return ", ".join(f"{task} {value:.2%}".strip() for task, value in words)


def _of_sweep() -> str:
    """Return `run 2 of 8, ` in a sweep."""
    job = HydraConfig.get() if HydraConfig.initialized() else None
    sweep = Command().sweep
    if sweep is None or job is None or OmegaConf.is_missing(job.job, "num"):
        return ""
    count = f" of {sweep.runs}" if sweep.runs else ""
    return f"run {job.job.num + 1}{count}, "


def result_table(cfg: DictConfig, metrics: dict[str, Any]) -> Table:
    """Return teacher and student side by side, and what the run cost."""
    student, teacher = metrics["student"], metrics.get("teacher")
    table = Table(caption_justify="left")
    table.add_column("model")
    tasks = tasks_in(student[metrics["select"]]["test"])
    names = ("val acc", "test acc", "NLL", "ECE") if tasks == [""] else ("val acc", "test acc")
    for column in ("params", "MACs", *(f"{task}\n{name}".strip() for task in tasks for name in names)):
        table.add_column(column, justify="right")
    if teacher:
        table.add_row(f"teacher {teacher_name(cfg)}", *_size(teacher), *_scores(teacher, tasks))
    for name in ("last", "best"):
        if name in student:
            size = _size(student) if name == "last" else ("", "")
            chosen = " (deployed)" if name == metrics["select"] and "best" in student else ""
            label = f"student {student_name(cfg.model.student, cfg.model.student_kwargs)}, {name}{chosen}"
            table.add_row(label, *size, *_scores(student[name], tasks))
    table.caption = "\n".join(_notes(metrics, student, teacher))
    return table


def _notes(metrics: dict[str, Any], student: dict[str, Any], teacher: dict[str, Any] | None) -> list[str]:
    deployed = student[metrics["select"]]
    lines = []
    taught = teacher["test"] if teacher else {}
    for task in tasks_in(taught) if "" not in tasks_in(taught) else ():
        gap = 100 * (deployed["test"][task_name(task, "accuracy")] - taught[task_name(task, "accuracy")])
        agreement = deployed["test"][task_name(task, "agreement")]
        where = "above" if gap > 0 else "below"
        lines.append(
            f"{task}: {abs(gap):.2f} points {where} its teacher, same answer for {agreement:.1%} of the samples."
        )
    if teacher and not lines:
        gap = 100 * (deployed["test"]["accuracy"] - teacher["test"]["accuracy"])
        fewer, cheaper = teacher["parameters"] / student["parameters"], teacher["macs"] / student["macs"]
        size = f"has {fewer:.1f}× fewer parameters and {cheaper:.1f}× fewer MACs, " * (max(fewer, cheaper) >= 1.05)
        where = "above" if gap > 0 else "below"
        lines.append(
            f"The student {size}is {abs(gap):.2f} points "
            f"{where} its teacher and agrees with it on {deployed['test']['agreement']:.1%} of the test samples."
            + " What distilling gained is told by the same command with loss=ce."
            * bool(metrics["labels"])
        )
    lines += calibrated_words(deployed)
    speed = f", {metrics['images_per_second']:,.0f} samples/s" if metrics["images_per_second"] else ""
    if metrics["epochs"]:
        many = "s" * (metrics["epochs"] != 1)
        lines.append(
            f"{metrics['epochs']} epoch{many} in {duration(metrics['seconds'])}{speed} on {metrics['device']}."
        )
    return lines


def calibrated_words(student: dict[str, Any]) -> list[str]:
    """Return a line for each task on the probabilities that are deployed; none if no temperature was fitted."""
    if (found := student.get("calibrated")) is None:
        return []
    lines = []
    for task in tasks_in(student["test"]):
        nll, ece = (found["test"][task_name(task, name)] for name in ("nll", "ece"))
        who, temperature = f"{task}: calibrated" if task else "Calibrated", part(found["temperature"], task)
        lines.append(f"{who} with T = {temperature:.2f}, as it is deployed: NLL {nll:.3f}, ECE {ece:.3f}.")
    return lines


def _size(model: dict[str, Any]) -> tuple[str, str]:
    return f"{model['parameters'] / 1e6:.2f} M", f"{model['macs'] / 1e6:,.1f} M"


def _scores(scores: dict[str, Any], tasks: list[str]) -> list[str]:
    """Return the cells of a model: those of each task one after the other."""
    cells = []
    for task in tasks:
        for split in ("val", "test"):
            value = scores.get(split, {}).get(task_name(task, "accuracy"))
            cells.append("–" if value is None else f"{value:.2%}")
    return cells if tasks != [""] else [*cells, f"{scores['test']['nll']:.3f}", f"{scores['test']['ece']:.3f}"]
