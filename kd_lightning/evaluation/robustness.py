"""Accuracy on corrupted test images."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kd_lightning.evaluation.corruptions import CORRUPTIONS, Corruption
from kd_lightning.evaluation.inference import Answer, Inference
from kd_lightning.evaluation.scores import accuracy
from kd_lightning.types import Batch


def robustness(
    inference: Inference, answers: Mapping[str, Answer], data: Any, images: int, step: Callable[[], None]
) -> dict[str, dict[str, list[float]]]:
    """Model → corruption → accuracy at strengths 1, 2, 3, and `clean` → [accuracy], all on the same `images` test
    images, taken at even distances. `step()` is called after each of the 16 passes.
    """
    order = torch.linspace(0, data.sizes["test"] - 1, min(images, data.sizes["test"])).round().long()
    plain = [(pixels_of(b.x, data.normalize), b) for b in inference.batches(data, "test", order)]
    results: dict[str, dict[str, list[float]]] = {name: {} for name in answers}

    def add(kind: str, changed: Callable[[Tensor, Tensor], Tensor]) -> None:
        def batches() -> Iterator[Batch]:
            return (b._replace(x=data.normalize(changed(pixels, b.index))) for pixels, b in plain)

        logits, y = inference.logits(answers, batches())
        for name in answers:
            results[name].setdefault(kind, []).append(accuracy(logits[name], y))
        step()

    add("clean", lambda pixels, index: pixels)
    for kind, (corrupt, strengths) in CORRUPTIONS.items():
        for strength in strengths:
            add(kind, partial(_corrupted, corrupt, strength))
    return results


def _corrupted(corrupt: Corruption, strength: float, pixels: Tensor, index: Tensor) -> Tensor:
    return corrupt(pixels, strength, index)


def pixels_of(x: Tensor, normalize: Any) -> Tensor:
    """Normalized images `[B, 3, H, W]` as the uint8 `[B, H, W, 3]` that they were."""
    mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in normalize)
    return (255 * (x * std + mean)).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
