"""Models over a split, on this machine, as the run did it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.data.loader import eval_order
from kd_lightning.teachers import Teacher
from kd_lightning.types import Batch
from kd_lightning.utils import hardware

Answer = Callable[[Batch], Tensor]
"""A batch to logits `[B, C]`."""

AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
DTYPES = {"bf16-true": torch.bfloat16, "64-true": torch.float64}


@dataclass(frozen=True)
class Inference:
    """Where and in which precision (Lightning's name) models answer."""

    accelerator: str
    precision: str

    @staticmethod
    def like(metrics: Mapping[str, Any], accelerator: str = "auto") -> "Inference":
        """As the run of `metrics` did; in float32 if its accelerator is not here. Raises UserError."""
        if accelerator == "auto":
            here = ("cpu", hardware.resolve_accelerator("auto"))
            accelerator = metrics["accelerator"] if metrics["accelerator"] in here else "cpu"
        accelerator = hardware.resolve_accelerator(accelerator)
        return Inference(accelerator, metrics["precision"] if accelerator == metrics["accelerator"] else "32-true")

    @property
    def device(self) -> torch.device:
        return torch.device({"gpu": "cuda"}.get(self.accelerator, self.accelerator))

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and images."""
        return DTYPES.get(self.precision, torch.float32)

    def student(self, model: nn.Module) -> Answer:
        """Moves the model to the device."""
        model.to(self.device, self.dtype).to(memory_format=torch.channels_last)
        return lambda batch: model(batch.x)

    def teacher(self, teacher: Teacher) -> Answer:
        """Moves the teacher to the device."""
        teacher.apply_(lambda t: t.to(self.device, self.dtype if t.is_floating_point() else None))
        return lambda batch: teacher.evaluate(batch).logits

    def batches(self, data: Any, split: str, order: Tensor | None = None) -> Iterator[Batch]:
        """Evaluation batches of a split on the device, of the samples `order` `[n]`, or all."""
        source = data.splits[split]
        order = eval_order(len(source)) if order is None else order
        batches: Iterator[Batch] = source.batches(order, data.eval_batch_size, data.seed, 0, self.device)
        return batches

    @torch.no_grad()
    def logits(self, answers: Mapping[str, Answer], batches: Iterable[Batch]) -> tuple[dict[str, Tensor], Tensor]:
        """Each model's float logits `[N, C]`, on the CPU, and the labels `[N]`."""
        parts: dict[str, list[Tensor]] = {name: [] for name in answers}
        labels = []
        for batch in batches:
            batch = batch._replace(x=batch.x.to(self.dtype))
            with self._autocast():
                for name, answer in answers.items():
                    parts[name].append(answer(batch).cpu())
            labels.append(batch.y.cpu())
        return {
            name: torch.cat(part).to(torch.promote_types(part[0].dtype, torch.float32)) for name, part in parts.items()
        }, torch.cat(labels)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()
