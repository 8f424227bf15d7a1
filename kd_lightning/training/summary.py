"""The words and the small table around a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig
from rich.table import Table
from torch import nn

from kd_lightning.models import count_macs, count_parameters
from kd_lightning.runs.names import student_name
from kd_lightning.teachers import Ensemble
from kd_lightning.training.build import Parts


def model_size(models: Sequence[nn.Module], image_sizes: Sequence[int]) -> dict[str, int]:
    """Parameters, and multiply-accumulates of one image, of all `models` together, each at its own size in pixels."""
    return {
        "parameters": sum(count_parameters(model) for model in models),
        "macs": sum(count_macs(model, size) for model, size in zip(models, image_sizes, strict=True)),
    }


def diversity(teachers: Ensemble, ece: float) -> str:
    """How the fused teachers are calibrated, and how often each two of them name the same class."""
    same = teachers.agreement()
    pairs = [f"{i} and {j} {same[i, j]:.2%}" for i in range(len(same)) for j in range(i)]
    return f"         fused: ECE {ece:.3f}; same answer of teachers {', '.join(pairs)}"


def teacher_name(cfg: DictConfig) -> str:
    """`resnet50`, or `resnet50 + wrn_40_2`."""
    teacher = cfg.model.teacher
    return " + ".join(teacher) if isinstance(teacher, ListConfig) else str(teacher)


def _student(cfg: DictConfig) -> str:
    return student_name(cfg.model.student, cfg.model.student_kwargs)


def heading(cfg: DictConfig, parts: Parts) -> str:
    """One line of what will be trained on what, with the values that were resolved for this machine."""
    sizes, trainer = parts.data.sizes, parts.trainer
    who = f"{teacher_name(cfg)} → {_student(cfg)}" if parts.loss.needs_teacher else _student(cfg)
    method = type(getattr(parts.loss, "method", parts.loss)).__name__
    counts = " / ".join(f"{sizes[split]:,} {split}" for split in ("train", "val", "test"))
    precision = f"{trainer.precision}{', compiled' * parts.compile}"
    return (
        f"{who} · {method} · {parts.data.name} ({counts}) · {trainer.max_epochs} epochs · "
        f"{precision} on {trainer.devices} × {trainer.accelerator} · seed {cfg.seed}"
    )


def result_line(metrics: dict[str, Any], out: Path) -> str:
    """What a run reached, in one line."""
    scores = ", ".join(f"{k} {v['test']['accuracy']:.2%}" for k, v in metrics["student"].items() if isinstance(v, dict))
    line = f"done in {duration(metrics['seconds'])}: test accuracy {scores} · {out}"
    if not metrics["time_shares"]:
        return line
    shares = ", ".join(f"{name} {share:.0%}" for name, share in metrics["time_shares"].items())
    return f"{line}\n{metrics['images_per_second']:,.0f} images/s; of the time {shares}"


def result_table(cfg: DictConfig, metrics: dict[str, Any], out: Path) -> Table:
    """Teacher and student side by side, what it cost, and where everything lies."""
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
            table.add_row(f"student {_student(cfg)}, {name}", *size, *_scores(student[name]))
    table.caption = "\n".join(_notes(metrics, student, teacher, out))
    return table


def _notes(metrics: dict[str, Any], student: dict[str, Any], teacher: dict[str, Any] | None, out: Path) -> list[str]:
    last = student["last"]
    lines = []
    if teacher:
        gap = 100 * (last["test"]["accuracy"] - teacher["test"]["accuracy"])
        fewer, cheaper = teacher["parameters"] / student["parameters"], teacher["macs"] / student["macs"]
        where = "above" if gap > 0 else "below"
        lines.append(
            f"The student has {fewer:.1f}× fewer parameters and {cheaper:.1f}× fewer MACs, is {abs(gap):.2f} points "
            f"{where} its teacher and agrees with it on {last['test']['agreement']:.1%} of the test images. "
            "What distilling gained is told by the same command with loss=ce."
        )
    speed = f", {metrics['images_per_second']:,.0f} images/s" if metrics["images_per_second"] else ""
    lines.append(f"{metrics['epochs']} epochs in {duration(metrics['seconds'])}{speed} on {metrics['device']}.")
    lines.append(f"Curves: tensorboard --logdir {out}")
    return lines


def _size(model: dict[str, Any]) -> tuple[str, str]:
    return f"{model['parameters'] / 1e6:.2f} M", f"{model['macs'] / 1e6:,.1f} M"


def _scores(scores: dict[str, Any]) -> list[str]:
    test = scores["test"]
    val = f"{scores['val']['accuracy']:.2%}" if "val" in scores else "–"
    return [val, f"{test['accuracy']:.2%}", f"{test['nll']:.3f}", f"{test['ece']:.3f}"]


def duration(seconds: float) -> str:
    """`95 s`, `12.3 min`, `4.5 h`."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
