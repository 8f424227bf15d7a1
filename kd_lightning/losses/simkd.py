"""The teacher's classifier, reused."""

from typing import Any

from torch import Tensor, nn

from kd_lightning.losses import functional as L
from kd_lightning.losses.layers import Layers
from kd_lightning.models import create_model
from kd_lightning.models.hooks import Tap
from kd_lightning.models.probe import Networks, Probe
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import integer


class SimKD(nn.Module):
    """The student's last map, projected to the teacher's width and pooled, matches the teacher's pooled features, and
    the teacher's own classifier, frozen, makes the logits. Projector and classifier are deployed.

    `reduction` divides the projector's inner channels.

    Matches: pooled features
    Formula: `mean (projector(f_s) − v_t)²`
    Paper: Chen et al. 2022, arXiv 2203.14001
    """

    def __init__(self, reduction: int = 2):
        super().__init__()
        self.reduction = integer("loss.reduction", reduction, least=1)
        self.layers = Layers("last", "pooled")

    def prepare(self, networks: Networks) -> None:
        assert networks.teacher is not None
        ((s, t),) = self.layers.find(networks)
        head = networks.teacher.head
        self.layers.student = ("head:input",)  # of the student on top of the backbone
        about, classes = networks.about_student, head.out_features
        kwargs: dict[str, Any] = {
            "inputs": s[0],
            "width": t[0],
            "inner": max(1, t[0] // self.reduction),
            "layer": _last(networks),
        }
        student = Reusing(networks.student.model, **kwargs, num_classes=classes)
        student.head = head  # the teacher's own, frozen, whatever weights it is given
        student.rebuild = {
            "name": "kd_lightning.losses.simkd.rebuild",
            "kwargs": {"backbone": about["name"], "backbone_kwargs": about["kwargs"]}
            | {"size": about["image_size"]}
            | kwargs,
        }
        self._student = (student,)  # in a tuple, so that it does not become this module's own

    def deployed(self, student: nn.Module) -> nn.Module:
        return self._student[0]

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return L.hint(*self.layers.pair(student, teacher))


def _last(networks: Networks) -> str:
    return networks.student.layers("last", "loss.student_layers")[0]


class Reusing(nn.Module):
    """Images to logits: `layer` of a backbone `[B, inputs, H, W]`, a projector, the mean over pixels, a classifier."""

    rebuild: dict[str, Any]

    def __init__(self, backbone: nn.Module, inputs: int, width: int, inner: int, layer: str, num_classes: int):
        super().__init__()
        self.backbone = backbone
        parent, _, name = Probe(backbone, None).head_name.rpartition(".")
        setattr(backbone.get_submodule(parent), name, nn.Identity())  # its own classifier has no use
        self._tap, self._layer = Tap(backbone, [layer]), layer
        self.projector = nn.Sequential(
            _conv_bn(inputs, inner, 1),
            nn.ReLU(),
            _conv_bn(inner, inner, 3),
            nn.ReLU(),
            _conv_bn(inner, width, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.projector(self._tap(x).features[self._layer]).mean((2, 3)))


def rebuild(num_classes: int, *, backbone: str, backbone_kwargs: dict[str, Any], size: int, **shape: Any) -> Reusing:
    """The deployed student of a run with SimKD, for its weights to be loaded into."""
    net = create_model(backbone, num_classes, image_size=size, **backbone_kwargs)
    return Reusing(net, **shape, num_classes=num_classes)


def _conv_bn(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs))
