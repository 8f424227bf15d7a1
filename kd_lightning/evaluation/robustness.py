"""Robustness: accuracy on corrupted test images."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from kd_lightning.data.images.module import ImageDataModule
from kd_lightning.evaluation.corruptions import CORRUPTIONS
from kd_lightning.evaluation.inference import Answer, Inference
from kd_lightning.evaluation.scores import accuracy
from kd_lightning.types import Batch, part

PASSES = 1 + sum(len(corruption.strengths) for corruption in CORRUPTIONS.values())


def robustness(
    inference: Inference,
    answers: Mapping[str, Answer],
    data: ImageDataModule,
    images: int,
    advance: Callable[[], None],
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Measure the accuracy on the same test images, corrupted in each way.

    Args:
        inference: Device and precision.
        answers: The models.
        data: The data set, prepared.
        images: Number of test images, taken at even distances.
        advance: Called after each of `PASSES` passes.

    Returns:
        Task → model → corruption → accuracy at strengths 1, 2, 3, and `clean` → [accuracy]; `""` is the only task of
        ordinary data.
    """
    order = torch.linspace(0, data.sizes["test"] - 1, min(images, data.sizes["test"])).round().long()
    clean = [(data.raw_inputs(batch.x), batch) for batch in inference.batches(data, "test", order)]
    results: dict[str, dict[str, dict[str, list[float]]]] = {task: {} for task in data.tasks or ("",)}

    def measure(kind: str, corrupt: Callable[[Tensor, float, Tensor], Tensor], strength: float) -> None:
        def batches() -> Iterator[Batch]:
            return (b._replace(x=data.normalize(corrupt(pixels, strength, b.index))) for pixels, b in clean)

        logits, y = inference.logits(answers, batches())
        for task, models in results.items():
            for name, z in logits.items():
                if not task or task in z:
                    models.setdefault(name, {}).setdefault(kind, []).append(accuracy(part(z, task), part(y, task)))
        advance()

    measure("clean", lambda pixels, strength, index: pixels, 0.0)
    for kind, corruption in CORRUPTIONS.items():
        for strength in corruption.strengths:
            measure(kind, corruption.apply, strength)
    return results
