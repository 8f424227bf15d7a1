"""Corruptions of images: five kinds in three strengths, always the same for the same image.

Functions take and return uint8 `[B, H, W, 3]`, as a stored image would be. The kinds are among those of ImageNet-C
(Hendrycks and Dietterich 2019, arXiv 1903.12261); the strengths are our own.
"""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as V


class Corruption(NamedTuple):
    """One kind of corruption."""

    apply: Callable[[Tensor, float, Tensor], Tensor]
    """From pixels, a strength and the indices of the samples to pixels."""
    strengths: tuple[float, float, float]
    """Its argument at strength 1, 2, 3."""
    unit: str


def noise(pixels: Tensor, sigma: float, index: Tensor) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma` (range of a pixel: 0 to 1), drawn for the sample's index."""
    draws = [torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(int(i))) for i in index]
    return _stored(pixels.float() + 255 * sigma * torch.stack(draws).to(pixels.device))


def blur(pixels: Tensor, sigma: float, index: Tensor) -> Tensor:
    """Blur by a Gaussian of `sigma` pixels, scaled up with the image above 64 pixels: 3.5 times as much at 224."""
    sigma *= max(1.0, pixels.shape[1] / 64)
    most = pixels.shape[1] if pixels.shape[1] % 2 else pixels.shape[1] - 1
    kernel = min(2 * round(3 * sigma) + 1, most)
    image = V.gaussian_blur(pixels.permute(0, 3, 1, 2).float(), [kernel, kernel], [sigma, sigma])
    return _stored(image.permute(0, 2, 3, 1))


def contrast(pixels: Tensor, factor: float, index: Tensor) -> Tensor:
    """Scale the distance of every pixel from the image's mean grey by `factor`."""
    mean = pixels.float().mean((1, 2, 3), keepdim=True)
    return _stored(mean + factor * (pixels.float() - mean))


def brightness(pixels: Tensor, shift: float, index: Tensor) -> Tensor:
    """Add `shift` (range of a pixel: 0 to 1)."""
    return _stored(pixels.float() + 255 * shift)


def jpeg(pixels: Tensor, quality: float, index: Tensor) -> Tensor:
    """Compress as JPEG of a quality, 1 to 95."""
    images = [_through_jpeg(image, int(quality)) for image in pixels.cpu().numpy()]
    return torch.from_numpy(np.stack(images)).to(pixels.device)


CORRUPTIONS = {
    "noise": Corruption(noise, (0.04, 0.08, 0.16), "standard deviation"),
    "blur": Corruption(blur, (0.5, 1.0, 1.5), "sigma, pixels"),
    "contrast": Corruption(contrast, (0.6, 0.4, 0.2), "factor"),
    "jpeg": Corruption(jpeg, (50, 25, 10), "quality"),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3), "added, of 1"),
}


def _stored(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _through_jpeg(pixels: Any, quality: int) -> Any:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
