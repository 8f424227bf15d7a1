"""The students of a run directory: their weights, and the card that rebuilds them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.runs.claims import damage
from kd_lightning.runs.directory import (
    BEST,
    CONFIG,
    LAST,
    METRICS,
    STUDENT,
    is_finished,
    kept_checkpoints,
    read,
)
from kd_lightning.runs.names import resume_word
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import checksum, write_whole
from kd_lightning.utils.seal import OPEN, SEAL, seal

KEY = "kd_lightning"
"""Key of the card in a weights file's metadata."""
LOST = f"has no {STUDENT}, though it finished; copy the folder again, or delete it and train again"
PEER = "peer_{}.safetensors"
"""A student that was trained beside the deployed one, from 1 (deep mutual learning)."""


def save_student(path: Path, model: nn.Module, card: StudentCard, name: str = STUDENT) -> None:
    """Write a student's weights, by default the deployed one's, with its card, into the run directory `path`."""
    save_weights(path / name, model, card)


def save_weights(path: Path, model: nn.Module, card: StudentCard | None = None) -> None:
    """Write a model's state as safetensors, whole or not at all, with a checksum of itself, which a card holds."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    words = {SEAL: OPEN}  # one entry: safetensors writes several in any order, and equal weights are equal files
    if card is not None:
        words = {KEY: json.dumps(replace(card, extra={**card.extra, SEAL: OPEN}).as_dict())}

    def write(partial: Path) -> None:
        save_file(state, partial, metadata=words)
        seal(partial)

    write_whole(path, write)


def weights_file(path: str | Path, key: str) -> Path:
    """Return the weights file that a user's `path` means: a file, the student of a run directory, or its `RUN@EPOCH`.

    Raises:
        UserError: If there is none, or a finished run's file is not the one that the run wrote.
    """
    path = Path(path).expanduser()
    folder, _, which = str(path).rpartition("@")
    if folder and which and not path.exists():
        return _checkpoint(Path(folder), which, key)
    if not path.is_dir():
        if path.name == STUDENT and is_finished(path.parent):
            check_weights(path.parent)
        return path
    if not (path / STUDENT).is_file():
        what = (
            LOST
            if is_finished(path)
            else "is a folder without a finished run; give a checkpoint file or a run directory"
        )
        raise UserError(f"{key}: {path} {what}")
    if is_finished(path):
        check_weights(path)
    return path / STUDENT


def _checkpoint(run: Path, which: str, key: str) -> Path:
    """Return the checkpoint `best`, `last` or of an epoch of a run directory. Raises UserError if it is not there."""
    if not (run / CONFIG).is_file():
        raise UserError(f"{key}: {run}@{which} needs a run directory before the @, and {run} is none")
    kept = kept_checkpoints(run)
    if is_finished(run):
        scores = read(run).metrics["student"]
        kept = {
            str(scores[name]["epoch"]): kept[name] for name in ("best", "last") if name in {*kept} & {*scores}
        } | kept
    elif which in ("best", "last"):  # they change while it trains
        raise UserError(f"{key}: {run} did not finish; go on with {resume_word(run)}, or name an epoch that it keeps")
    if which not in kept:
        there = ", ".join(sorted(kept, key=lambda name: (name.isdigit(), int(name) if name.isdigit() else 0)))
        raise UserError(
            f"{key}: {run} has no checkpoint {which!r}, only {there or 'none'}; trainer.keep_epochs=[…] keeps epochs"
        )
    if problem := damage(kept[which]):
        raise UserError(f"{key}: {kept[which]} is damaged ({problem})")
    return kept[which]


def card_of(path: Path) -> StudentCard | None:
    """Return the card in a weights file, or None if it has none that can be read."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as f:
            return StudentCard.from_dict(json.loads((f.metadata() or {})[KEY]))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None


def check_weights(path: Path) -> None:
    """Raise UserError if the student's weights in the run directory `path` are not those that the run wrote."""
    if checksum(path / STUDENT) != read(path).metrics["sha256"][STUDENT]:
        raise UserError(f"{path / STUDENT} is damaged: its checksum is not the one in {METRICS}; train it again")


def build_student(card: StudentCard, key: str) -> nn.Module:
    """Return the network that `card` describes, with random weights.

    Raises:
        UserError: If it cannot be made; outside `utils.trust.trusting`, also if it is code that this package does not
            offer, as the card may come from a file.
    """
    return create_model(card.name, kwargs=card.kwargs, key=key, **card.inputs)


def load_student(path: Path) -> tuple[nn.Module, StudentCard]:
    """Return the deployed student of the run in `path`, in eval mode, and its card. Raises UserError."""
    weights = path / STUDENT
    if not weights.is_file():
        if is_finished(path):
            raise UserError(f"{path} {LOST}")
        raise UserError(f"{path} has no {STUDENT}: that run did not finish; go on with {resume_word(path)}")
    try:
        with safe_open(weights, "pt") as f:
            card = StudentCard.from_dict(json.loads(f.metadata()[KEY]))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise UserError(f"{weights} is damaged, or not of a run; run it again") from e
    check_weights(path)
    model = build_student(card, str(path))
    load_weights(model, weights, key=str(path))
    return model.eval(), card


def load_students(path: Path) -> tuple[dict[str, nn.Module], StudentCard]:
    """Return the students of the run in `path` by name, the deployed one first, and their card.

    These are `last` and, where validation chose one, `best`. The other one is missing if its checkpoint was deleted.
    """
    deployed, card = load_student(path)
    metrics = read(path).metrics
    students = {metrics["select"]: deployed}
    for name, file in (("last", LAST), ("best", BEST)):
        if name in metrics["student"] and name not in students and (path / file).is_file():
            students[name], _ = load_student(path)  # not a copy, whose hooks would remain the first one's
            load_weights(students[name], path / file, key=str(path))
    return students, card


def load_checkpoint(module: nn.Module, path: Path) -> int:
    """Load a Lightning checkpoint's weights into `module`; return the number of epochs it was trained for.

    Raises:
        UserError: If it is damaged.
    """
    if problem := damage(path):
        raise UserError(f"{path} is damaged ({problem}), and the run cannot be tested with it; train it again")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    return int(state["epoch"]) + 1
