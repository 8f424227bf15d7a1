"""Inference over a split, on this machine, in the precision of the run."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kd_lightning.data.loader import eval_order
from kd_lightning.data.module import DataModule, Split
from kd_lightning.models.hooks import logits_of
from kd_lightning.types import Batch, Teacher
from kd_lightning.utils import hardware
from kd_lightning.utils.signals import stop_if_asked

Answer = Callable[[Batch], Any]
"""A batch to logits `[B, C]`, by task if there are several."""

AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
DTYPES = {"bf16-true": torch.bfloat16, "64-true": torch.float64}


@dataclass(frozen=True)
class Inference:
    """Device and precision (Lightning's name) in which models answer."""

    accelerator: str
    precision: str

    @staticmethod
    def like(metrics: Mapping[str, Any], accelerator: str = "auto") -> "Inference":
        """Return device and precision of the run of `metrics`; float32 if its accelerator is not here.

        Raises:
            UserError: If this machine lacks `accelerator`.
        """
        if accelerator == "auto":
            here = ("cpu", hardware.resolve_accelerator("auto"))
            accelerator = metrics["accelerator"] if metrics["accelerator"] in here else "cpu"
        accelerator = hardware.resolve_accelerator(accelerator)
        return Inference(accelerator, metrics["precision"] if accelerator == metrics["accelerator"] else "32-true")

    @property
    def device(self) -> torch.device:
        """Device of models and batches."""
        return torch.device({"gpu": "cuda"}.get(self.accelerator, self.accelerator))

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and of floating-point inputs."""
        return DTYPES.get(self.precision, torch.float32)

    def inputs(self, x: Any) -> Any:
        """Return the tensors of `x` on the device, the floating-point ones in the type of the weights."""
        return tree_map(lambda t: t.to(self.device, self.dtype if t.is_floating_point() else None), x)

    def student(self, model: nn.Module) -> Answer:
        """Move the model to the device; return what it answers."""
        model.to(self.device, self.dtype).to(memory_format=torch.channels_last)
        return lambda batch: logits_of(model, batch.x)

    def teacher(self, teacher: Teacher) -> Answer:
        """Move the teacher to the device; return what it answers."""
        teacher.apply_(lambda t: t.to(self.device, self.dtype if t.is_floating_point() else None))
        return lambda batch: teacher.evaluate(batch).logits

    def batches(self, data: DataModule, split: Split, order: Tensor | None = None) -> Iterator[Batch]:
        """Yield evaluation batches of a split on the device, of the samples `order` `[n]`, or of all."""
        source = data.splits[split]
        order = eval_order(len(source)) if order is None else order
        return source.batches(order, data.eval_batch_size, data.view_seed, 0, self.device)

    @torch.no_grad()
    def logits(self, answers: Mapping[str, Answer], batches: Iterable[Batch]) -> tuple[dict[str, Any], Any]:
        """Return each model's float logits `[N, C]`, on the CPU, and the labels `[N]`, by task if there are several."""
        parts: dict[str, list[Any]] = {name: [] for name in answers}
        labels = []
        for batch in batches:
            stop_if_asked()
            batch = batch._replace(x=self.inputs(batch.x))
            with self._autocast():
                for name, answer in answers.items():
                    parts[name].append(tree_map(lambda z: z.cpu(), answer(batch)))
            labels.append(tree_map(lambda y: y.cpu(), batch.y))
        joined = {name: tree_map(_joined, *part) for name, part in parts.items()}
        return joined, tree_map(lambda *y: torch.cat(y), *labels)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()


def _joined(*logits: Tensor) -> Tensor:
    return torch.cat(logits).to(torch.promote_types(logits[0].dtype, torch.float32))
