"""Tracing of a model to a graph of modules and functions, with the shapes that it has for one example."""

from collections.abc import Callable, Mapping
from operator import attrgetter, methodcaller
from typing import Any

import torch
from torch import fx, nn

from kd_lightning.utils.checks import UserError


def trace(model: nn.Module, x: Any) -> fx.GraphModule:
    """Return the graph that `model` runs in eval mode for inputs like `x`, a tensor or a dictionary of tensors.

    It shares the parameters.

    Branches that depend on shapes are taken as for `x`; `node.meta["value"]` is what a node gave for it.

    Raises:
        UserError: If the model cannot be traced.
    """
    tracer = _Tracer(x)
    try:
        with torch.no_grad():
            graph = tracer.trace(model.eval())
    except UserError:
        raise
    except Exception as e:  # whatever a model of the user's own does to a proxy
        reason = str(e).strip().partition("\n")[0].partition(". ")[0]
        raise UserError(f"cannot trace {type(model).__name__}: {reason}; its forward must be plain tensor code") from e
    return fx.GraphModule(tracer.root, graph, type(model).__name__)


class _Tracer(fx.Tracer):
    """Traces with an example beside the symbols, so that a condition on a shape has an answer."""

    def __init__(self, example: Any):
        super().__init__()
        self.example = example
        self.running = False  # a node for its value, which makes no nodes

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        values = fx.node.map_aggregate((args, kwargs), _value)
        self.running = True
        try:
            proxy.node.meta["value"] = self._run(kind, target, *values)
        finally:
            self.running = False
        return proxy

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self.running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _run(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self.example[target] if isinstance(self.example, Mapping) else self.example
        if kind == "output":
            return None
        if kind == "get_attr":
            return attrgetter(target)(self.root)
        run: Callable[..., Any] = target
        if kind == "call_module":
            run = self.root.get_submodule(target)
        elif kind == "call_method":
            return methodcaller(target, *args[1:], **kwargs)(args[0])
        return run(*args, **kwargs)

    def to_bool(self, obj: Any) -> bool:
        return bool(_value(obj))

    def iter(self, obj: Any) -> Any:
        return (obj[i] for i in range(len(_value(obj))))


def _value(item: Any) -> Any:
    return item.node.meta["value"] if isinstance(item, fx.Proxy) else item
