"""From descriptions of teachers to their networks, with the weights that lie in files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_lightning.data.module import DataModule
from kd_lightning.data.translation import Translation
from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.models.hugging_face import HuggingFace
from kd_lightning.models.imagenet import AS_PUBLISHED
from kd_lightning.models.published import published
from kd_lightning.runs.students import card_of
from kd_lightning.teachers import exported
from kd_lightning.teachers.adapter import TeacherAdapter
from kd_lightning.teachers.classes import chosen_classes, other_classes
from kd_lightning.teachers.stored import NAME, StoredAnswers
from kd_lightning.teachers.stored_file import SUFFIXES, read_stored
from kd_lightning.types import batch_of
from kd_lightning.utils.checks import UserError, of_task
from kd_lightning.utils.hub import is_hub

PUBLISHED = "published"
"""`model.teacher_weights` of a network as torchvision, timm or Hugging Face publish it."""


@dataclass(frozen=True)
class TeacherSpec:
    """One teacher, as the keys `model.teacher*` describe it."""

    name: str
    kwargs: Mapping[str, Any]
    weights: str
    """A path; `auto` or `imagenet`: trained on this data first; or `published`: as it was published."""
    normalize: Any = None
    input_size: Any = None
    classes: tuple[str, ...] | Mapping[str, Any] | None = None
    """Class names in the order of its outputs, or for each class of the data its name or number there; None for what
    the weights say of themselves, or else the order of the data."""
    views: Any = None
    """`center` if stored answers are given to all views of a sample."""
    suffix: str = ""
    """Appended to its keys in messages, such as `[1]`."""
    task: str = ""
    """The task that it teaches; `""` is the only one of ordinary data."""

    @property
    def is_trained_here(self) -> bool:
        """True if its weights come from the teacher stage."""
        return self.weights in ("auto", "imagenet")

    @property
    def starts_pretrained(self) -> bool:
        """True if the stage goes on from published weights; those of Hugging Face have no other purpose."""
        return self.weights == "imagenet" or (self.weights == "auto" and is_hub(self.name))


@dataclass(frozen=True)
class TeacherFile:
    """The file that a teacher's weights were read from."""

    spec: TeacherSpec
    path: Path
    sha256: str
    """See `exported.weights_checksum`."""


@dataclass(frozen=True)
class OpenedTeacher:
    """A teacher's network, with its weights unless the teacher stage will give them."""

    spec: TeacherSpec
    model: nn.Module
    adapter: TeacherAdapter | None
    outputs: int
    """Number of its logits, of which the adapter picks those of the data's classes."""

    @property
    def has_network(self) -> bool:
        """True if it can answer any inputs; stored answers cannot."""
        return not isinstance(self.model, StoredAnswers)

    @property
    def has_layers(self) -> bool:
        """True if a loss may read layers of it; an exported file gives logits only."""
        return not isinstance(self.model, StoredAnswers | exported.Exported)

    def example(self, data: DataModule, count: int) -> Any:
        """Return inputs of `count` samples as the network takes them."""
        batch = batch_of(data.example(count), count)
        return batch.x if self.adapter is None else self.adapter.inputs(batch)


def open_teachers(specs: Iterable[TeacherSpec], data: DataModule) -> tuple[OpenedTeacher, ...]:
    """Return the networks of one or several tasks; see `open_teacher`."""
    found = []
    for spec in specs:
        with of_task(spec.task):
            found.append(open_teacher(spec, data.of(spec.task)))
    return tuple(found)


def open_teacher(spec: TeacherSpec, data: DataModule) -> OpenedTeacher:
    """Create the network and load its weights, if they lie in a file.

    Raises:
        UserError: If the network or its weights do not exist or do not fit the classes of the data.
    """
    if spec.name == NAME:
        return OpenedTeacher(spec, _stored(spec, data), None, data.num_classes)
    if spec.name == exported.NAME:
        return _exported(spec, data)
    if spec.weights == PUBLISHED:
        return _published(spec, data)
    card = None if spec.is_trained_here else card_of(Path(spec.weights))
    prepared = None if card is None else card.preprocessing
    translate, facts = data.teacher_inputs(spec.normalize, spec.input_size, spec.suffix, spec.name, prepared)
    own = list(data.classes) if card is None else list(card.classes)
    names, order = chosen_classes(spec.classes, own, data.classes, spec.suffix)
    facts = facts | {"num_classes": len(names)}
    kwargs = card.kwargs if card is not None and is_hub(spec.name) and card.name == spec.name else spec.kwargs
    model = create_model(spec.name, kwargs=kwargs, key=f"model.teacher{spec.suffix}", **facts)
    model = model.to(memory_format=torch.channels_last)
    if not spec.is_trained_here:
        try:
            load_weights(model, spec.weights, f"model.teacher_weights{spec.suffix}")
        except UserError as e:
            raise UserError(f"{e}{other_classes(model, spec.weights, data.classes, spec.suffix)}") from e
    elif order is not None or spec.normalize is not None or spec.input_size is not None:
        raise UserError(
            f"model.teacher_weights{spec.suffix}={spec.weights} trains a teacher on this data as it is; "
            "teacher_normalize, teacher_input_size and teacher_classes are for one that was trained elsewhere"
        )
    return OpenedTeacher(spec, model, _adapter(translate, order), len(names))


def _stored(spec: TeacherSpec, data: DataModule) -> StoredAnswers:
    """Return the answers that the teacher `spec` is made of. Raises UserError."""
    key = f"model.teacher_weights{spec.suffix}"
    if spec.is_trained_here:
        raise UserError(f"{key}: model.teacher=stored needs a file of answers, {' or '.join(SUFFIXES)}")
    for name, value in (("normalize", spec.normalize), ("input_size", spec.input_size), ("kwargs", spec.kwargs)):
        if value:
            raise UserError(f"model.teacher_{name}{spec.suffix} is for a network; model.teacher=stored runs none")
    if isinstance(spec.classes, Mapping):
        raise UserError(f"model.teacher_classes{spec.suffix}: stored answers take a list, in the order of the columns")
    return read_stored(Path(spec.weights), data, key, spec.classes, spec.views)


def _exported(spec: TeacherSpec, data: DataModule) -> OpenedTeacher:
    """Return the network in an exported file; where ours says how it wants its inputs, so it gets them."""
    key = f"model.teacher_weights{spec.suffix}"
    if spec.is_trained_here:
        raise UserError(f"{key}: model.teacher=file needs an exported file, {' or '.join(exported.SUFFIXES)}")
    if spec.kwargs:
        raise UserError(f"model.teacher_kwargs{spec.suffix}: an exported file takes none; leave them out")
    network, card = exported.open_exported(Path(spec.weights), key)
    if card is not None and "" not in card.tasks:
        raise UserError(f"{key}: the student in {spec.weights} has several tasks; a file that teaches has one")
    if card is not None:
        own = card.preprocessing
        spec = replace(
            spec,
            normalize=own.get("normalize") if spec.normalize is None else spec.normalize,
            input_size=own.get("image_size") if spec.input_size is None else spec.input_size,
        )
    takes_pixels = card is not None and card.extra.get("input") == exported.PIXELS
    exported.as_data_wants(network, card, data, key)
    translate, _ = data.teacher_inputs(
        None if takes_pixels else spec.normalize,
        spec.input_size,
        spec.suffix,
        card=None if card is None else card.preprocessing,
    )
    known = list(data.classes) if card is None else list(card.classes)
    names, order = chosen_classes(spec.classes, known, data.classes, spec.suffix)
    return OpenedTeacher(spec, network, _adapter(translate, order), len(names))


def _published(spec: TeacherSpec, data: DataModule) -> OpenedTeacher:
    """Return a network as it was published, with its own classifier, for images as it was trained on."""
    key = f"model.teacher{spec.suffix}"
    known = published(spec.name, f"model.teacher_weights{spec.suffix}", "image_size" in data.model_kwargs())
    translate, facts = data.teacher_inputs(
        known.normalize if spec.normalize is None else spec.normalize,
        known.image_size if spec.input_size is None else spec.input_size,
        spec.suffix,
        spec.name,
    )
    names, order = chosen_classes(spec.classes, known.classes, data.classes, spec.suffix)
    facts = facts | {"num_classes": len(known.classes)}
    kwargs = AS_PUBLISHED.get(spec.name, {}) | dict(spec.kwargs)
    model = create_model(spec.name, kwargs=kwargs, pretrained=True, key=key, **facts)
    if isinstance(model, HuggingFace) and model.fresh:
        raise UserError(
            f"model.teacher_weights{spec.suffix}=published: {spec.name} has no weights for "
            f"{', '.join(model.fresh[:3])}; it is no finished classifier. Train it on this data first: auto"
        )
    return OpenedTeacher(spec, model, _adapter(translate, order), len(names))


def _adapter(translate: Translation | None, order: Sequence[int] | None) -> TeacherAdapter | None:
    return None if translate is None and order is None else TeacherAdapter(translate, order)
