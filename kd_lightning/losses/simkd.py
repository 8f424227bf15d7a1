"""The teacher's classifier, reused."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses import functional as L
from kd_lightning.losses.layers import Layers
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.models import create_model
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.models.probe import Probe
from kd_lightning.types import Batch, Outputs, StudentCard
from kd_lightning.utils.checks import UserError, integer


class SimKD(Method):
    """The student's last map, projected to the teacher's width and pooled, matches the teacher's pooled features.

    The teacher's own classifier, frozen, makes the logits. Projector and classifier are trained and deployed as part of
    the student.

    Args:
        reduction: Divisor of the projector's inner channels, >= 1.

    Raises:
        UserError: For a wrong value, or, in `prepare`, for inputs that are a dictionary, such as tokens and a mask,
            or for a student with layers between its last map and its classifier.

    Matches: pooled features
    Formula: `mean (projector(f_s) − v_t)²`
    Paper: Chen et al. 2022, arXiv 2203.14001
    """

    def __init__(self, reduction: int = 2, alpha: Any = 1.0, ce_weight: Any = 0.0):
        super().__init__(alpha, ce_weight)
        self.reduction = integer("loss.reduction", reduction, ge=1)
        self.layers = Layers("last", "pooled")

    def prepare(self, networks: Networks) -> None:
        assert networks.teacher is not None
        if isinstance(networks.student.x, Mapping):
            raise UserError(
                "loss=simkd makes a student out of feature maps without padding, as those of images and recordings; "
                "for other data take loss=srrl, which also uses the teacher's classifier"
            )
        ((s, t),) = self.layers.find(networks)
        head = networks.teacher.head
        self._shape: dict[str, Any] = {
            "inputs": s[0],
            "width": t[0],
            "inner": max(1, t[0] // self.reduction),
            "layer": self.layers.student[0],
        }
        self.layers.student = ("head:input",)  # of the student with the projector
        student = Reusing(networks.student.model, **self._shape, num_classes=head.out_features)
        if unused := student.unused(networks.student.x):
            raise UserError(
                f"loss=simkd deploys the student up to its last map, and {unused[0]} lies behind that and would be "
                "deployed for nothing; take a student whose classifier follows the pooled map"
            )
        student.head = head  # the teacher's own, frozen, whatever weights it is given
        self._student = (student,)  # a tuple, so that it does not become this module's own

    def wrap_student(self, student: nn.Module) -> nn.Module:
        return self._student[0]

    def wrap_card(self, card: StudentCard) -> StudentCard:
        backbone = {"name": card.name, "kwargs": dict(card.kwargs), "inputs": dict(card.inputs)}
        return replace(card, name="kd_lightning.losses.simkd.rebuild", kwargs={"backbone": backbone} | self._shape)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        """Return the mean squared error of the pooled features `[B, D]`."""
        return L.hint(*self.layers.pair(student, teacher))


class Reusing(nn.Module):
    """A backbone up to one layer, a projector, the mean over the pixels, and a classifier.

    Args:
        backbone: Network of which `layer` gives maps `[B, inputs, H, W]`; loses its own classifier.
        inputs: Channels of these maps.
        width: Inputs of the classifier.
        inner: Channels within the projector.
        layer: Name of the layer.
        num_classes: Outputs of the classifier.
    """

    def __init__(self, backbone: nn.Module, inputs: int, width: int, inner: int, layer: str, num_classes: int):
        super().__init__()
        self.backbone = backbone
        parent, _, name = Probe(backbone, None).head_name.rpartition(".")
        setattr(backbone.get_submodule(parent), name, nn.Identity())  # its own classifier has no use
        self._extract, self._layer = FeatureExtractor(backbone, [layer]), layer
        self.projector = nn.Sequential(
            _conv_bn(inputs, inner, 1),
            nn.ReLU(),
            _conv_bn(inner, inner, 3),
            nn.ReLU(),
            _conv_bn(inner, width, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(width, num_classes)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Reusing":
        """Return a copy whose layer is read by hooks of its own."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        self._extract.remove()
        vars(other).update(copy.deepcopy(vars(self), memo))
        for one in (self, other):
            one._extract.place()
        return other

    def unused(self, x: Any) -> list[str]:
        """Return the parameters of the backbone that do not reach the classifier, for inputs `x`."""
        named = {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}
        training = self.training
        with torch.enable_grad():
            reached = self.eval()(x).sum()
            gradients = torch.autograd.grad(reached, list(named.values()), allow_unused=True)
        self.train(training)
        return [name for name, gradient in zip(named, gradients, strict=True) if gradient is None]

    def forward(self, x: Any) -> Tensor:
        """Return logits `[B, num_classes]`."""
        return self.head(self.projector(self._extract(x).features[self._layer]).mean((2, 3)))


def rebuild(
    num_classes: int, *, backbone: Mapping[str, Any], inputs: int, width: int, inner: int, layer: str, **facts: Any
) -> Reusing:
    """Return the deployed student of a run with SimKD, for its weights to be loaded into.

    Args:
        num_classes: Outputs of the classifier.
        backbone: Name, arguments (`kwargs`) and facts of the data (`inputs`) for `create_model`.
        inputs: As in `Reusing`, like the others.
        facts: Facts of the data, which the backbone was given; not used.
    """
    net = create_model(backbone["name"], kwargs=backbone["kwargs"], **backbone["inputs"])
    return Reusing(net, inputs, width, inner, layer, num_classes)


def _conv_bn(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs))
