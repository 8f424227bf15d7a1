"""Pictures made worse, each kind in three strengths, always in the same way for the same picture.

Functions take and return uint8 `[B, H, W, 3]`, as a stored picture would be. The kinds are among those of
ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261); the strengths are our own and given here.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as V

Corruption = Callable[[Tensor, float, Tensor], Tensor]


def noise(pixels: Tensor, sigma: float, index: Tensor) -> Tensor:
    """Adds Gaussian noise of standard deviation `sigma` (range of a pixel: 0 to 1), drawn for the sample's index."""
    draws = [torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(int(i))) for i in index]
    return _stored(pixels.float() + 255 * sigma * torch.stack(draws).to(pixels.device))


def blur(pixels: Tensor, sigma: float, index: Tensor) -> Tensor:
    """Gaussian blur of `sigma` pixels, scaled up with the image above 64 pixels: 3.5 times as much at 224."""
    sigma *= max(1.0, pixels.shape[1] / 64)
    most = pixels.shape[1] if pixels.shape[1] % 2 else pixels.shape[1] - 1
    kernel = min(2 * round(3 * sigma) + 1, most)
    image = V.gaussian_blur(pixels.permute(0, 3, 1, 2).float(), [kernel, kernel], [sigma, sigma])
    return _stored(image.permute(0, 2, 3, 1))


def contrast(pixels: Tensor, factor: float, index: Tensor) -> Tensor:
    """Draws every pixel to the image's mean grey, of whose distance `factor` is left."""
    mean = pixels.float().mean((1, 2, 3), keepdim=True)
    return _stored(mean + factor * (pixels.float() - mean))


def brightness(pixels: Tensor, shift: float, index: Tensor) -> Tensor:
    """Adds `shift` (range of a pixel: 0 to 1)."""
    return _stored(pixels.float() + 255 * shift)


def jpeg(pixels: Tensor, quality: float, index: Tensor) -> Tensor:
    """Through a JPEG file of that quality, 1 to 95."""
    return torch.from_numpy(np.stack([_through_jpeg(p, int(quality)) for p in pixels.cpu().numpy()])).to(pixels.device)


CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, float, float]]] = {
    "noise": (noise, (0.04, 0.08, 0.16)),
    "blur": (blur, (0.5, 1.0, 1.5)),
    "contrast": (contrast, (0.6, 0.4, 0.2)),
    "jpeg": (jpeg, (50, 25, 10)),
    "brightness": (brightness, (0.1, 0.2, 0.3)),
}
"""Name → function and its argument at strength 1, 2, 3."""


def _stored(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _through_jpeg(pixels: Any, quality: int) -> Any:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
