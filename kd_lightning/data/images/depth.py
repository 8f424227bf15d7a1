"""Pictures of any depth and mode as RGB with 8 bits: by the range that their format says, or refused."""

from typing import Any

import numpy as np
from PIL import Image, ImageFile

BLACK = 0x1000
"""16-bit values below it would be less than 16 of 255: a picture of 12 bits or fewer in a file of 16."""


def is_deep(image: Image.Image) -> bool:
    """Return whether a file that was opened and not yet read has 16 bits a channel; PIL gives color in 8."""
    return isinstance(image, ImageFile.ImageFile) and any(";16" in str(tile.args) for tile in image.tile)


def rgb(image: Image.Image, deep: bool = False) -> Image.Image:
    """Return the picture in RGB, transparent parts on white.

    16 bits keep their upper 8. Grey with 32 bits is read as 0 to 65,535, floating-point grey as 0 to 1.

    Args:
        image: The picture, upright.
        deep: Its file `is_deep`.

    Raises:
        ValueError: If the values contradict their range, or do not reach into the upper 4 of 16 bits.
    """
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if deep and np.asarray(image.convert("RGB")).max() < BLACK >> 8:
        raise ValueError(f"16-bit color whose values are all below {BLACK:,}, nearly black; save it in 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image) -> np.ndarray[Any, Any]:
    """Return uint8 `[H, W]` of grey with more than 8 bits. Raises ValueError if its range is not known."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F":
        if not 0 <= low <= high <= 1:  # false for NaN too
            raise ValueError(f"floating-point grey from {low:.4g} to {high:.4g}, not 0 to 1; save it in 8 bits")
        return (255 * values).round().astype(np.uint8)
    if image.mode == "I" and (low < 0 or high > 0xFFFF):
        raise ValueError(f"32-bit grey from {low} to {high}, its range is not known; save it in 8 or 16 bits")
    if 0 < high < BLACK:  # it may have been meant as 8, 10 or 12 bits
        bits = 16 if image.mode.startswith("I;16") else 32
        raise ValueError(f"{bits}-bit grey from {low} to {high}, its range is not known; save it in 8 bits")
    return (values >> 8).astype(np.uint8)
