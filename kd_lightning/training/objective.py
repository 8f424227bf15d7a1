"""The loss of a run: built from its configuration, and told about the networks before they are trained."""

import inspect
from typing import Any

import hydra
import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from kd_lightning.config import build
from kd_lightning.losses import Distillation
from kd_lightning.losses.fusion import Fusion
from kd_lightning.models import create_model
from kd_lightning.models.probe import Networks, Probe
from kd_lightning.utils.checks import UserError

WEIGHTS = ("alpha", "ce_weight")


def build_loss(node: DictConfig, model: DictConfig) -> nn.Module:
    """What `node` names is a method, given all keys but `alpha` and `ce_weight`, which weigh it and the cross-entropy,
    and `fusion`, which makes one teacher of several (`model.teacher`, `model.teacher_weighting`).

    A target with a `ce_weight` of its own, such as `CE`, is a whole loss and is left as it is. Raises UserError.
    """
    if "ce_weight" in _parameters(node):
        return build(node, "loss")
    weights: Any = OmegaConf.to_container(OmegaConf.masked_copy(node, [k for k in WEIGHTS if k in node]), resolve=True)
    method = build(OmegaConf.masked_copy(node, [str(k) for k in node if k not in (*WEIGHTS, "fusion")]), "loss")
    return Distillation(method, **weights, fusion=build_fusion(node, model))


def build_fusion(node: DictConfig, model: DictConfig) -> Fusion:
    """How the loss `node` makes one teacher of several. Raises UserError."""
    several = isinstance(model.teacher, ListConfig)
    weighting: Any = OmegaConf.to_container(OmegaConf.create({"w": model.teacher_weighting}))["w"]  # type: ignore[call-overload,index]
    if weighting is not None and not several:
        raise UserError(
            f"model.teacher_weighting={weighting} is for several teachers, got model.teacher={model.teacher}"
        )
    return Fusion(node.get("fusion", "probabilities"), weighting, len(model.teacher) if several else 1)


def _parameters(node: DictConfig) -> list[str]:
    try:
        return list(inspect.signature(hydra.utils.get_object(node._target_)).parameters)
    except Exception:  # no such thing, or none with a signature: `build` says it better
        return []


def prepare_loss(
    cfg: DictConfig, loss: Any, student: nn.Module, teacher: nn.Module | None, data: Any
) -> tuple[str, ...]:
    """Lets the loss find its layers and make its parameters; returns the layers of the teacher. Raises UserError."""
    if hasattr(loss, "prepare"):
        pl.seed_everything(cfg.seed, workers=True, verbose=False)  # whatever the teacher's initial weights drew
        x = torch.zeros(2, 3, data.image_size, data.image_size)
        about = {
            "name": cfg.model.student,
            "image_size": data.image_size,
            "kwargs": OmegaConf.to_container(cfg.model.student_kwargs, resolve=True),
        }

        def new_student() -> nn.Module:
            with torch.random.fork_rng():
                torch.manual_seed(2**32 + cfg.seed)  # the run's own seed would give the very same weights again
                model = create_model(about["name"], data.num_classes, image_size=data.image_size, **about["kwargs"])
            return model.to(memory_format=torch.channels_last)

        order = cfg.model.teacher_classes
        if order is not None and teacher is not None and hasattr(loss.method, "deployed"):
            raise UserError(
                "model.teacher_classes: this loss deploys the teacher's classifier as it is, with its order of "
                "classes; use a loss that keeps the student's own"
            )
        probe = None if teacher is None else Probe(teacher, x)
        loss.prepare(Networks(Probe(student, x), probe, data.sizes["train"], new_student, about))
    layers: tuple[str, ...] = loss.teacher_layers
    return layers
