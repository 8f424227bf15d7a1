"""Figures and HParams of a finished run in TensorBoard: confusion, reliability, samples."""

import re
import shlex
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils._pytree import tree_map

from kd_lightning.data.module import DataModule
from kd_lightning.distiller import Distiller
from kd_lightning.models.hooks import like_weights, logits_of
from kd_lightning.plots.evaluation import confusion_figure, reliability_figure
from kd_lightning.plots.style import short
from kd_lightning.runs.names import train_command
from kd_lightning.training.summary import calibrated_words
from kd_lightning.types import part
from kd_lightning.utils.console import never_fatal
from kd_lightning.utils.names import task_name

SAMPLES = 12
LONGEST = 300
"""Characters of a sentence in the table of samples."""
WIDTH = 96
"""Characters of a line of the command that TensorBoard's text panel shows at 1280 pixels."""


def try_pictures(
    trainer: pl.Trainer, distiller: Distiller, data: DataModule, hparams: dict[str, Any], metrics: dict[str, Any]
) -> None:
    """Add the figures of a finished run to its events; a failure is one line, as the run is finished without them."""
    logger = next((one for one in trainer.loggers if isinstance(one, TensorBoardLogger)), None)
    if logger is None:
        return
    with never_fatal("no figures in TensorBoard"):
        log_pictures(logger, trainer.global_step, distiller, data, hparams, metrics)


def log_pictures(
    logger: TensorBoardLogger,
    step: int,
    distiller: Distiller,
    data: DataModule,
    hparams: dict[str, Any],
    metrics: dict[str, Any],
) -> None:
    """Add figures of the deployed student's test, its scores, and the command with a table, to the run's events."""
    writer = logger.experiment
    for task in distiller.loss.tasks:
        own, detail = data.of(task), distiller.scores.of(task).detail
        confusion = {name: scores["confusion"] for name, scores in detail.items()}
        tags = {name: f"z_test/{task_name(task, name)}" for name in ("confusion", "reliability", "samples")}
        writer.add_figure(tags["confusion"], confusion_figure(confusion, list(own.classes)), step)
        writer.add_figure(tags["reliability"], reliability_figure(detail), step)
        _log_samples(writer, tags["samples"], step, distiller, own, task)
    test = metrics["student"][metrics["select"]]["test"]
    # Single dots: the group comes after the curves of train and val.
    logger.log_hyperparams(hparams, {f"z_test/{name}": value for name, value in test.items()})
    writer.add_text("run", panel(metrics), step)
    writer.flush()


def panel(metrics: dict[str, Any]) -> str:
    """Return the command of a run and its result, as Markdown."""
    student = metrics["student"]
    there = [name for name in ("last", "best") if name in student]
    chosen = {metrics["select"]: " (deployed)"} if len(there) > 1 else {}
    rows = [(f"student, {name}{chosen.get(name, '')}", student[name]) for name in there]
    if "teacher" in metrics:
        rows.insert(0, ("teacher", metrics["teacher"]))
    lines = ["| model | val acc | test acc | NLL | ECE |", "|---|---:|---:|---:|---:|"]
    for name, scores in rows:
        val = f"{scores['val']['accuracy']:.2%}" if "val" in scores else "–"
        test = scores["test"]
        lines.append(f"| {name} | {val} | {test['accuracy']:.2%} | {test['nll']:.3f} | {test['ece']:.3f} |")
    lines += [f"\n{words}" for words in calibrated_words(student[metrics["select"]])]
    return "\n".join([*(f"    {line}" for line in _folded(train_command())), "", *lines])


def _folded(words: Sequence[str]) -> list[str]:
    """Return a command in lines that the panel shows whole, each but the last ending in a backslash."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) > WIDTH:
            lines.append("    ")
        lines[-1] += f"{word} "
    return [f"{line}\\" for line in lines[:-1]] + [lines[-1].rstrip()]


@torch.no_grad()
def _log_samples(writer: Any, tag: str, step: int, distiller: Distiller, data: DataModule, task: str) -> None:
    """Add test samples with each model's answer, as pictures or text; `data` has the labels of one task."""
    loader = data.loader("test")
    total = len(loader.source)
    spread = torch.linspace(0, total - 1, min(SAMPLES, total)).long()  # files come sorted by class: not the first ones
    batch = next(iter(loader.source.batches(spread, SAMPLES, 0, 0, loader.device)))
    batch = batch._replace(x=tree_map(lambda tensor: tensor.to(distiller.device), batch.x))
    pixels, texts = data.pixels(batch.x), data.texts(batch)
    if pixels is None and texts is None:
        return
    student = distiller.student.eval()
    answers = {"student": part(logits_of(student, like_weights(batch.x, student)), task)}
    teacher = distiller.teacher.of(task) if distiller.teacher is not None else None
    if teacher is not None and teacher.evaluates:
        answers["teacher"] = teacher.evaluate(batch).logits
    probabilities = {name: logits.float().softmax(1).cpu() for name, logits in answers.items()}
    if pixels is not None:
        writer.add_figure(tag, samples_figure(pixels, batch.y, probabilities, list(data.classes)), step)
    if texts is not None:
        writer.add_text(tag, samples_text(texts, batch.y, probabilities, data.classes), step)


def samples_text(texts: Sequence[str], y: Tensor, probabilities: dict[str, Tensor], classes: Sequence[str]) -> str:
    """Return sentences with their label and each model's answer of its probabilities `[N, C]`, as Markdown."""
    lines = [f"| sentence | label | {' | '.join(probabilities)} |", "|---" * (2 + len(probabilities)) + "|"]
    for n, text in enumerate(texts):
        cells = [_literal(text), _literal(classes[int(y[n])])]
        for p in probabilities.values():
            best = int(p[n].argmax())
            told = f"{p[n, best]:.0%} {_literal(classes[best])}"
            cells.append(told if best == int(y[n]) else f"**{told}**")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Wrong answers are bold."])


def _literal(text: str) -> str:
    """Return a text in one line of a Markdown table, as it is; the end of a long one is left out."""
    line = " ".join(text.split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]} …"
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", line)


def samples_figure(pixels: Tensor, y: Tensor, probabilities: dict[str, Tensor], classes: list[str]) -> Figure:
    """Return images `[N, H, W, 3]`, uint8, with their label and each model's top 3 of probabilities `[N, C]`."""
    figure = Figure(figsize=(14, 6.6), layout="constrained")
    classes = [short(name) for name in classes]
    cells = figure.subplots(3, 8, width_ratios=[1, 1.1] * 4).reshape(-1, 2)
    for n, (picture, words) in enumerate(cells):
        picture.axis("off")
        words.axis("off")
        if n >= len(pixels):
            continue
        picture.imshow(pixels[n].numpy(), interpolation="nearest")
        picture.set_title(classes[int(y[n])], fontsize=11)
        top = 1.0
        for name, p in probabilities.items():
            best = p[n].topk(min(3, len(classes)))
            right = int(best.indices[0]) == int(y[n])
            lines = [f"{v:4.0%} {classes[int(i)]}" for v, i in zip(best.values, best.indices, strict=True)]
            words.text(0, top, name, fontsize=9, weight="bold", va="top")
            color = "tab:green" if right else "tab:red"
            words.text(0, top - 0.1, "\n".join(lines), fontsize=9, va="top", family="monospace", color=color)
            top -= 0.5
    return figure
