"""Activations of a model's layers, by name."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from kd_lightning.checks import UserError, did_you_mean
from kd_lightning.types import Outputs


class Tap:
    """Calls `model` and also returns the outputs of the named layers.

    >>> Tap(resnet18, ["layer2"])(x).features["layer2"].shape  # [B, 128, 16, 16]

    Raises UserError if the model has no layer of that name.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] = ()):
        self.model = model
        self._seen: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        for name in layers:
            if name not in modules:
                children = ", ".join(child for child, _ in model.named_children())
                hint = did_you_mean(name, modules)
                raise UserError(f"no layer {name!r} in {type(model).__name__}{hint}; it has {children}")
            modules[name].register_forward_hook(self._remember(name))

    def _remember(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            self._seen[name] = output

        return hook

    def __call__(self, x: Any) -> Outputs:
        self._seen.clear()
        logits = self.model(x)
        return Outputs(logits, dict(self._seen))
