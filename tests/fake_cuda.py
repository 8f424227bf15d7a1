"""CUDA tensors without a GPU, and a count of what would make the host wait for one.

`FakeTensorMode` gives tensors a device and a shape and no content: operations that mix devices raise. `Waits` looks at
every operation and notes those that a GPU would have to answer before the host goes on.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASK_FOR_CONTENT = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "equal"}


class Waits(TorchDispatchMode):
    """Names of the operations for which the host would wait, and counts of the operations on CPU tensors."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode
        self.names: list[str] = []
        self.on_cpu: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], torch.Tensor) and not isinstance(args[0], FakeTensor):
            args = (self.mode.from_tensor(args[0]), *args[1:])  # made before, with content
        given = devices((args, kwargs))
        name = func._schema.name.split("::")[-1]
        if "cuda" in given and (name in ASK_FOR_CONTENT or (name.startswith("index") and has_mask(args[1:]))):
            self.names.append(name)
        out = func(*args, **kwargs)
        if name in ("_to_copy", "copy_") and given | devices(out) == {"cpu", "cuda"}:
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            self.names += [f"{name} between devices"] * blocking
        if given == {"cpu"} == devices(out):
            self.on_cpu[name] += 1
        return out


def devices(tree: Any) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}


def has_mask(tree: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(tree))


@contextmanager
def fake_cuda() -> Iterator[Waits]:
    """A machine with one empty GPU; tensors made inside have no content."""
    with ExitStack() as stack:
        # Before the patches: where it finds no GPU, it makes torch ask no driver.
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        waits = Waits(mode)
        for name, value in (("is_available", True), ("memory_reserved", 0), ("memory_allocated", 0)):
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *_, value=value: value))
        stack.enter_context(mock.patch.object(torch.cuda, "mem_get_info", lambda *_: (80 * 10**9, 85 * 10**9)))
        stack.enter_context(mock.patch.object(fake_tensor, "init_gpu_context", lambda *_: None))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor))
        of_cpu = torch.Generator
        stack.enter_context(mock.patch.object(torch, "Generator", lambda *_: of_cpu()))
        stack.enter_context(waits)
        yield waits


def to_fake(module: torch.nn.Module, device: torch.device) -> None:
    """Move a module to a device that is not there, with all that its `_apply` takes along."""

    def replace(module: torch.nn.Module, fn: Any, recurse: bool = True) -> torch.nn.Module:
        """Do what `Module._apply` does, which cannot swap a tensor of its kind for another."""
        for child in module.children():
            child._apply(fn)
        for name, parameter in module._parameters.items():
            if parameter is not None and not isinstance(parameter, FakeTensor):
                module._parameters[name] = torch.nn.Parameter(fn(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else fn(buffer)
        return module

    with mock.patch.object(torch.nn.Module, "_apply", replace):
        module._apply(lambda tensor: tensor.to(device))
