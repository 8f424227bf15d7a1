"""A chain of teachers: each student teaches the next one, in one command that goes on where it stopped."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from rich.table import Table

from kd_lightning import runs
from kd_lightning.config import ModelConfig, build
from kd_lightning.data.module import MAX_SEED, DataModule
from kd_lightning.models import create_model
from kd_lightning.runs import claims
from kd_lightning.training.build import build_experiment
from kd_lightning.training.run import train
from kd_lightning.training.summary import duration
from kd_lightning.utils.checks import UserError, integer
from kd_lightning.utils.console import say
from kd_lightning.utils.names import slug
from kd_lightning.utils.quiet import quiet


@dataclass(frozen=True)
class Link:
    """One network of a chain."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)


def train_chain(cfg: DictConfig, out: Path) -> tuple[dict[str, Any], DictConfig]:
    """Train each network of the chain with the one before as its teacher; what is finished is not trained again.

    Args:
        cfg: The configuration, with `model.chain` or `model.generations`.
        out: Folder of the run directories, one for each student.

    Returns:
        Metrics and configuration of the last run.

    Raises:
        UserError: Before anything is trained, for a link that is no network or a value that does not fit.
    """
    quiet()
    links = chain_links(cfg.model)
    check_chain(cfg, links)
    folders = [out / f"{i}_{slug(link.name)}" for i, link in enumerate(links)]
    say(f"chain of {len(links)}: {' → '.join(link.name for link in links)}, kept in {out}")
    metrics, config = {}, cfg
    told: list[tuple[Path, dict[str, Any]]] = []
    for i in range(1, len(links)):
        config = link_config(cfg, links, i, folders[i - 1])
        state = claims.state(folders[i], config)
        if state == "finished":
            say(f"link {i} of {len(links) - 1}: finished before, not trained again: {folders[i]}")
            metrics = runs.read(folders[i]).metrics
        else:
            say(f"link {i} of {len(links) - 1}: {links[i - 1].name} teaches {links[i].name}")
            metrics = train(config, folders[i], resume=state == "begun")
        told.append((folders[i], metrics))
    say(chain_table(links, told))
    return metrics, config


def chain_links(model: DictConfig) -> list[Link]:
    """Return the networks of `model.chain`, or of `model.generations`: the student, and so many students after it.

    Raises:
        UserError: If it is no list of two or more names.
    """
    if model.get("generations") is not None:
        if model.get("chain") is not None:
            raise UserError("model.generations repeats one network, and model.chain names each; give one of them")
        count = integer("model.generations", model.generations, ge=1)
        return [Link(model.student, _plain(model.student_kwargs))] * (count + 1)
    chain = _plain(model.chain)
    if not isinstance(chain, list) or len(chain) < 2:
        raise UserError(
            f"model.chain must be a list of two or more networks such as [resnet110,resnet56,resnet20], got {chain!r}"
        )
    if model.student_kwargs:
        raise UserError(
            "model.student_kwargs: a chain has several students; write {name: …, kwargs: {…}} in model.chain"
        )
    return [_link(i, one) for i, one in enumerate(chain)]


def _link(i: int, value: Any) -> Link:
    if isinstance(value, str) and value:
        return Link(value)
    if isinstance(value, dict) and isinstance(value.get("name"), str) and set(value) <= {"name", "kwargs"}:
        return Link(value["name"], dict(value.get("kwargs") or {}))
    raise UserError(f"model.chain[{i}] must be the name of a network, or {{name: …, kwargs: {{…}}}}, got {value!r}")


def check_chain(cfg: DictConfig, links: Sequence[Link]) -> None:
    """Build every link, so that a mistake in the last one stops before the first is trained. Raises UserError."""
    model = cfg.model
    if model.student_weights or model.student_pretrained:
        raise UserError(
            "model.chain: its students start from random weights; leave out student_weights and _pretrained"
        )
    integer("seed", cfg.seed, ge=0, le=MAX_SEED - len(links))
    data: DataModule = build(cfg.data, "data")
    data.prepare_data()
    data.setup()
    if data.tasks:
        raise UserError(f"model.chain: a chain is for one task; choose data.task, one of {', '.join(data.tasks)}")
    for i, link in enumerate(links):
        create_model(link.name, kwargs=link.kwargs, key=f"model.chain[{i}]", **data.model_kwargs())
    for i in range(1, len(links)):
        config = link_config(cfg, links, i, None)
        if not build_experiment(config).teachers:
            raise UserError("model.chain: this loss has no teacher, so that nothing is handed on; use loss=kd")


def link_config(cfg: DictConfig, links: Sequence[Link], i: int, teacher: Path | None) -> DictConfig:
    """Return the configuration of an ordinary run: link `i` is taught by the one before.

    Args:
        cfg: The configuration of the chain.
        links: Its networks.
        i: Number of the student, from 1.
        teacher: Run directory of the one before; None while there is none yet. The first teacher is the one that
            `model.teacher_weights` says.
    """
    config, later = cfg.copy(), len(links) - 1 - i
    with open_dict(config):
        config.seed = cfg.seed + later  # the last one has the seed that was typed; no two begin alike
        model = config.model
        model.chain = model.generations = None
        model.student, model.student_kwargs = links[i].name, links[i].kwargs
        model.teacher, model.teacher_kwargs = links[i - 1].name, links[i - 1].kwargs
        if i == 1:
            if links[0] == links[1]:
                config.teacher_stage.seed = cfg.seed + later + 1
            return config
        plain = vars(ModelConfig())
        for key in ("normalize", "input_size", "classes", "views"):  # of the first teacher, which is of other origin
            model[f"teacher_{key}"] = plain[f"teacher_{key}"]
        model.teacher_weights = "auto" if teacher is None else str(teacher)
    return config


def chain_table(links: Sequence[Link], told: Sequence[tuple[Path, dict[str, Any]]]) -> Table:
    """Return size, accuracy and time of each link; the first teacher's are those that the first student saw."""
    table = Table(caption_justify="left")
    table.add_column("network")
    for column in ("params", "test acc", "time"):
        table.add_column(column, justify="right")
    first = told[0][1].get("teacher")
    if first:
        table.add_row(links[0].name, f"{first['parameters'] / 1e6:.2f} M", f"{first['test']['accuracy']:.2%}", "–")
    for link, (_, metrics) in zip(links[1:], told, strict=True):
        student = metrics["student"]
        accuracy = student[metrics["select"]]["test"]["accuracy"]
        table.add_row(
            link.name, f"{student['parameters'] / 1e6:.2f} M", f"{accuracy:.2%}", duration(metrics["seconds"])
        )
    table.caption = f"The last one: {told[-1][0]}"
    return table


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
