"""Corruptions: the same every time, worse with every strength; and latency."""

import time

import pytest
import torch

from kd_lightning.evaluation.corruptions import CORRUPTIONS
from kd_lightning.utils.latency import FEWEST, latency

INDEX = torch.arange(24)


def photos(size: int) -> torch.Tensor:
    """Something with edges, ramps and colours, uint8 `[24, size, size, 3]`."""
    at = torch.arange(size) / size
    waves = [torch.sin((k + 1) * at[:, None] * 3 + c + 2 * at[None]) for k in range(24) for c in range(3)]
    images = torch.stack(waves).view(24, 3, size, size).permute(0, 2, 3, 1)
    return (90 + 80 * images + 40 * (images > 0.3)).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("size", [8, 32, 96])
def test_a_corruption_is_deterministic_and_grows_with_its_strength(kind: str, size: int) -> None:
    corrupt, strengths, _ = CORRUPTIONS[kind]
    clean = photos(size)
    before = clean.clone()
    worse = [corrupt(clean, strength, INDEX) for strength in strengths]
    assert torch.equal(clean, before)
    assert all(image.shape == clean.shape and image.dtype == torch.uint8 for image in worse)
    distances = [float((image.float() - clean.float()).abs().mean()) for image in worse]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert torch.equal(corrupt(clean, strengths[1], INDEX), worse[1])
    part = corrupt(clean[5:9], strengths[1], INDEX[5:9])  # whatever the batch
    assert torch.equal(part, worse[1][5:9])


def test_noise_is_as_strong_as_it_says() -> None:
    corrupt, (sigma, *_), _ = CORRUPTIONS["noise"]
    grey = torch.full((24, 32, 32, 3), 128, dtype=torch.uint8)
    assert float(corrupt(grey, sigma, INDEX).float().std()) / 255 == pytest.approx(sigma, rel=0.03)


def test_latency_is_that_of_the_call() -> None:
    seen = []

    def answer(x: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append((x["pixels"].shape, x["mask"].shape))
        time.sleep(0.01)
        return x["mask"]

    told = latency(answer, {"pixels": torch.zeros(4, 3, 8, 8), "mask": torch.zeros(4, 5)}, 4)
    assert set(seen) == {((4, 3, 8, 8), (4, 5))}
    assert FEWEST <= told["runs"] < len(seen)  # the warm-up is not counted
    assert 10 <= told["median_ms"] <= told["p95_ms"] and told["median_ms"] < 100
    assert told["samples_per_second"] == pytest.approx(4000 / told["median_ms"])
