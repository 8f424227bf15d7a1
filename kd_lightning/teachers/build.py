"""From networks with their weights to the teacher that answers batches."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kd_lightning.data.module import DataModule
from kd_lightning.losses.fusion import Fusion
from kd_lightning.teachers.cache.storage import CacheSpec, with_cache
from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.teachers.opened import OpenedTeacher
from kd_lightning.teachers.scaled import ScaledTeacher
from kd_lightning.teachers.stored import StoredAnswers, StoredTeacher
from kd_lightning.teachers.tasks import TaskTeachers
from kd_lightning.types import Teacher, batch_of


def build_task_teachers(
    opened: Sequence[OpenedTeacher],
    data: DataModule,
    fusions: Mapping[str, Fusion],
    *,
    layers: Mapping[str, Sequence[str]] = MappingProxyType({}),
    temperatures: Sequence[float] | None = None,
    **how: Any,
) -> Teacher:
    """Return the teacher of one task, or those of several together.

    Args:
        opened: The networks of all tasks.
        data: The data set.
        fusions: Task → how its teachers become one; `""` is the only task of ordinary data.
        layers: Task → names of the layers that its loss reads.
        temperatures: One for each of the networks.
        how: Further arguments of `build_teacher`.
    """
    teachers: dict[str, Teacher] = {}
    for task in dict.fromkeys(one.spec.task for one in opened):
        places = [i for i, one in enumerate(opened) if one.spec.task == task]
        teachers[task] = build_teacher(
            [opened[i] for i in places],
            data.of(task),
            layers=layers.get(task, ()),
            fusion=fusions[task],
            temperatures=None if temperatures is None else [temperatures[i] for i in places],
            **how,
        )
    return teachers[""] if "" in teachers else TaskTeachers(teachers)


def build_teacher(
    opened: Sequence[OpenedTeacher],
    data: DataModule,
    *,
    layers: Sequence[str] = (),
    fusion: Fusion | None = None,
    precision: str = "32-true",
    cache: CacheSpec | None = None,
    temperatures: Sequence[float] | None = None,
) -> Teacher:
    """Return the teacher of one or several networks, whose weights are loaded.

    Args:
        opened: The networks.
        data: The data set whose batches it answers.
        layers: Names of layers that the loss reads; only one teacher can give them.
        fusion: How several teachers become one.
        precision: Lightning's name of the precision that it runs in.
        cache: Where its answers are kept; None to run it on every batch.
        temperatures: Divides the logits of each network; None leaves them as they are.

    Raises:
        UserError: If the cache cannot be where it was asked for.
    """
    members: list[Teacher] = []
    for one in opened:
        if isinstance(one.model, StoredAnswers):
            members.append(StoredTeacher(one.model))
            continue
        teacher = LiveTeacher(one.model, layers, one.adapter)
        if layers:
            members.append(teacher)
            continue
        teacher.optimize_for_inference(batch_of(data.example(4), 4), precision)
        members.append(teacher if cache is None else with_cache(teacher, one.spec.name, data, cache, precision))
    if temperatures is not None:
        members = [ScaledTeacher(member, t) for member, t in zip(members, temperatures, strict=True)]
    return members[0] if len(members) == 1 else Ensemble(members, fusion or Fusion(teachers=len(members)))
