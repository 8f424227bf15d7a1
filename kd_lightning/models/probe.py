"""Networks before training, as a loss sees them: what layers they have and what shapes these give."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.models import head, stages
from kd_lightning.models.hooks import BEFORE_RELU, INPUT, FeatureExtractor
from kd_lightning.types import Outputs
from kd_lightning.utils.checks import UserError


class Probe:
    """One network and a sample input `x` `[2, …]`, which is run through it where shapes are asked for."""

    def __init__(self, model: nn.Module, x: Any):
        self.model, self.x = model, x

    @property
    def head_name(self) -> str:
        """Name of the classifier. Raises UserError if there is none."""
        return head(self.model)

    @property
    def head(self) -> nn.Linear:
        """The classifier. Raises UserError if there is none."""
        found = self.model.get_submodule(self.head_name)
        assert isinstance(found, nn.Linear)
        return found

    def layers(self, wanted: Any, key: str) -> tuple[str, ...]:
        """Names for `FeatureExtractor` of the `wanted` layers.

        `all` (every stage), `last` (the last stage), `pooled` (the classifier's input `[B, D]`), `before_relu` (every
        stage before its final ReLU), the number of a stage from 1, a layer's name, or a list of numbers and names.
        Raises UserError, naming `key`.
        """
        if wanted == "all":
            return stages(self.model)
        if wanted == "last":
            return stages(self.model)[-1:]
        if wanted == "pooled":
            return (head(self.model) + INPUT,)
        if wanted == "before_relu":
            return tuple(self._before_relu(name) for name in stages(self.model))
        if isinstance(wanted, Sequence) and not isinstance(wanted, str) and len(wanted) > 0:
            return tuple(self._layer(w, key) for w in wanted)
        return (self._layer(wanted, key),)

    def _layer(self, wanted: Any, key: str) -> str:
        if isinstance(wanted, str):
            return wanted  # FeatureExtractor says if there is none of that name
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            names = stages(self.model)
            if not 1 <= wanted <= len(names):
                who, has = type(self.model).__name__, "1 stage" if len(names) == 1 else f"{len(names)} stages"
                raise UserError(f"{key}: there is no stage {wanted} in {who}; it has {has}: give last or a number")
            return names[wanted - 1]
        raise UserError(f"{key} must be all, last, pooled, a stage's number, a layer's name or a list, got {wanted!r}")

    def _before_relu(self, name: str) -> str:
        """Return the stage before its ReLU, the BatchNorm that follows it (WRN), or the stage itself (MobileNetV2)."""
        try:
            self.shapes((name + BEFORE_RELU,))
        except UserError:
            return self._norm_of(name) or name
        return name + BEFORE_RELU

    def _norm_of(self, stage: str) -> str | None:
        norms = [n for n, m in self.model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        features = self._run((stage, *(n + INPUT for n in norms)))
        said = features[stage]
        given = {n: features[n + INPUT] for n in norms}
        return next((n for n, x in given.items() if x.shape == said.shape and torch.equal(x, said)), None)

    def shapes(self, layers: Sequence[str]) -> list[tuple[int, ...]]:
        """Shapes of these layers' activations without the batch. Raises UserError if there is no such layer."""
        features = self._run(layers)
        return [tuple(features[name].shape[1:]) for name in layers]

    def logits(self) -> Any:
        """Return the answer to the sample input, by task of a network with several heads."""
        return self._answer(()).logits

    def _run(self, layers: Sequence[str]) -> Mapping[str, Tensor]:
        return self._answer(layers).features

    def _answer(self, layers: Sequence[str]) -> Outputs:
        tap = FeatureExtractor(self.model, layers)
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()  # running statistics stay as they are
        try:
            with torch.no_grad():
                return tap(self.x)
        finally:
            tap.remove()
            for module, training in modes:
                module.training = training

    def norm(self, layer: str, key: str) -> nn.Module:
        """The BatchNorm that `layer` is, or the last one on the way to the ReLU that ends it. Raises UserError."""
        module = self.model.get_submodule(layer.removesuffix(BEFORE_RELU))
        found = [
            m
            for name, m in module.named_modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine and not _in_shortcut(name)
        ]
        if not found or (module is not found[-1] and not layer.endswith(BEFORE_RELU)):
            raise UserError(
                f"{key}: {layer} of {type(self.model).__name__} does not end in BatchNorm, ReLU; name BatchNorm layers"
            )
        return found[-1]


def _in_shortcut(name: str) -> bool:
    return any(part in ("shortcut", "downsample") for part in name.split("."))
