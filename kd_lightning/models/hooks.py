"""Activations of a model's layers, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from kd_lightning.types import Outputs
from kd_lightning.utils.checks import UserError, did_you_mean

INPUT = ":input"
BEFORE_RELU = ":before_relu"


class FeatureExtractor:
    """Calls `model` and also returns the outputs of the named layers.

    >>> FeatureExtractor(resnet18, ["layer2"])(x).features["layer2"].shape  # [B, 128, 16, 16]

    `fc:input` is what the layer was given, and `layer2:before_relu` what the ReLU at its end was given, be it a module
    or a function. An in-place ReLU that follows does not change what a single layer said; a block's output is what the
    model makes of it.

    Raises:
        UserError: If the model has no layer of that name, or, when called, if no ReLU ends it.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] = ()):
        self.model = model
        self._seen: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        self._compiled: tuple[int, Callable[..., Tensor]] | None = None
        self._graphs = False
        self._layers = tuple(layers)
        self.place()

    def place(self) -> None:
        """Place the hooks on the model's layers, again if some were replaced since (as SyncBatchNorm does)."""
        self.remove()
        model, modules = self.model, dict(self.model.named_modules())
        for tap in self._layers:
            name = tap.removesuffix(INPUT).removesuffix(BEFORE_RELU)
            if name not in modules:
                children = ", ".join(child for child, _ in model.named_children())
                hint = did_you_mean(name, modules)
                raise UserError(f"no layer {name!r} in {type(model).__name__}{hint}; it has {children}")
            if tap.endswith(INPUT):
                self._handles.append(modules[name].register_forward_pre_hook(self._remember_input(tap)))
            elif tap.endswith(BEFORE_RELU):
                self._watch_relu(tap, modules[name])
            else:
                self._handles.append(modules[name].register_forward_hook(self._remember(tap)))

    def _remember(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            is_single = next(module.children(), None) is None
            self._seen[name] = output.clone() if is_single else output

        return hook

    def _remember_input(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            self._seen[name] = args[0].clone()

        return hook

    def _watch_relu(self, name: str, module: nn.Module) -> None:
        relu = _LastReLU()

        def start(module: nn.Module, args: Any) -> None:
            relu.before = relu.after = None
            relu.__enter__()

        def stop(module: nn.Module, args: Any, output: Any) -> None:
            relu.__exit__(None, None, None)
            if output is None:
                return  # the layer raised
            if relu.before is None or relu.after is not output:
                raise UserError(f"no ReLU ends layer {name.removesuffix(BEFORE_RELU)!r} of {type(self.model).__name__}")
            self._seen[name] = relu.before
            relu.before = relu.after = None

        self._handles.append(module.register_forward_pre_hook(start))
        self._handles.append(module.register_forward_hook(stop, always_call=True))

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def compile(self, size: int, mode: str = "default") -> None:
        """Lets training batches of `size` samples run compiled; no layer can be read there.

        Only those: an epoch's last batch and those of an evaluation are of other shapes, and compiling for each would
        take as long again. With `mode` = reduce-overhead the outputs hold until the next call.
        """
        compiled: Any = torch.compile(self.model, dynamic=False, mode=None if mode == "default" else mode)
        self._compiled, self._graphs = (size, compiled), mode != "default"

    def __call__(self, x: Any, training: int | None = None) -> Outputs:
        """`training` is the number of samples of a training batch, None for others."""
        size, compiled = self._compiled or (None, self.model)
        model = compiled if training == size else self.model
        if model is not self.model and self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # what the graph said in the last step is not read any more
        logits = logits_of(model, x)
        features = dict(self._seen)
        self._seen.clear()
        return Outputs(logits, features)


def logits_of(model: Callable[..., Any], x: Any) -> Any:
    """Return the logits that `model` answers to inputs `x`; the entries of a dictionary are keyword arguments.

    The answer is a tensor, a mapping with `logits`, as the models of Hugging Face give it, or, of a network with
    several heads, a mapping from task to logits.

    Raises:
        UserError: For any other answer.
    """
    answer = model(**x) if isinstance(x, Mapping) else model(x)
    logits = answer["logits"] if isinstance(answer, Mapping) and "logits" in answer else answer
    heads = list(logits.values()) if isinstance(logits, Mapping) else [logits]
    if not heads or not all(isinstance(head, Tensor) for head in heads):
        raise UserError(
            "a network must return its logits: a tensor, a mapping with 'logits', or a mapping from task to logits, "
            f"got {type(answer).__name__}"
        )
    return logits


def like_weights(x: Any, model: nn.Module) -> Any:
    """Return inputs in the dtype of a model's weights: with bf16-true and 64-true, data is read as float32."""
    dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), None)
    if dtype is None:
        return x
    return tree_map(lambda some: some.to(dtype) if torch.is_tensor(some) and some.is_floating_point() else some, x)


class _LastReLU(TorchFunctionMode):
    """Sees every ReLU that runs while it is entered; keeps the last one's input and output."""

    RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
    before: Tensor | None = None
    after: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.RELUS:
            return func(*args, **kwargs)
        given = args[0] if args else kwargs["input"]
        in_place = kwargs.get("inplace", False) or args[1:] == (True,) or func in (torch.relu_, Tensor.relu_)
        self.before = given.clone() if in_place else given
        self.after = func(*args, **kwargs)
        return self.after
