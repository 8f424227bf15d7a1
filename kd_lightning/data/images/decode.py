"""The one decoder of pictures: training, verification, prediction, `kd_lightning.load` and exports see the same pixels.

Every picture becomes upright RGB with 8 bits:

- It is turned as its EXIF orientation says. A damaged EXIF is no error: the picture stays as it is stored.
- Transparent parts are shown on white.
- 16 bits keep their upper 8. Grey with 32 bits is read as 0 to 65,535, floating-point grey as 0 to 1; where the values
  contradict that or would be nearly black, the picture is refused.
- Of an animation, the first frame counts. Color profiles are ignored.
"""

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from kd_lightning.data.images.depth import is_deep, rgb
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.utils.checks import UserError

try:
    from pillow_heif import register_heif_opener
except ImportError:
    pass
else:
    register_heif_opener()

File = str | PathLike[str] | bytes | bytearray | memoryview | BytesIO | Image.Image
_FILES = (str, PathLike, bytes, bytearray, memoryview, BytesIO, Image.Image)
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright picture."""
Choose = Callable[[int, int], Box]
"""Region of a picture of a width and a height."""

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SPARE = (
    2.0  # a JPEG decoded at a fraction of its size keeps so many times the pixels wanted, as PIL's `thumbnail` does
)
_warnings = threading.Lock()  # filters of warnings belong to the process, and `verify` decodes in threads


def decode(file: File) -> Image.Image:
    """Return the whole picture, upright, in RGB.

    Args:
        file: Path, content of a file, or PIL image.

    Raises:
        UserError: If it cannot be read; one line.
    """
    with _one_line(file), _open(file) as image:
        deep = is_deep(image)
        picture = rgb(_upright(image, _orientation(image)), deep)
        return picture.copy() if picture is image else picture


def square(file: File, size: int, choose: Choose, exact: bool = True) -> Image.Image:
    """Return a region of the picture, resized to `size` x `size` pixels, in RGB.

    The region is resized from the picture itself: memory does not grow with the picture's height divided by its width.

    Args:
        file: Path, content of a file, or PIL image.
        choose: Region, given width and height.
        exact: False decodes a JPEG at 1/2, 1/4 or 1/8 of its size where the region keeps twice the pixels wanted.

    Raises:
        UserError: If it cannot be read; one line.
    """
    with _one_line(file):
        return read_square(file, size, choose, exact)


def read_square(file: File, size: int, choose: Choose, exact: bool = True) -> Image.Image:
    """Return what `square` returns. Raises whatever PIL's plugins raise; `reason` says it in one line."""
    with _open(file) as image:
        deep, orientation = is_deep(image), _orientation(image)
        width, height = image.size[::-1] if orientation >= 5 else image.size
        left, top, right, bottom = choose(width, height)
        if not exact:
            wide = math.ceil(_SPARE * size * width / (right - left))
            high = math.ceil(_SPARE * size * height / (bottom - top))
            image.draft(None, (high, wide) if orientation >= 5 else (wide, high))
        picture = rgb(_upright(image, orientation), deep)
    x, y = picture.width / width, picture.height / height
    box = left * x, top * y, min(right * x, picture.width), min(bottom * y, picture.height)
    return picture.resize((size, size), Image.Resampling.BILINEAR, box)


def center_box(width: int, height: int, size: int, margin: float = 1.0) -> Box:
    """Return the region in the middle that evaluations see.

    It is what a center crop of `size` pixels leaves after the shorter side was resized to `margin * size` pixels,
    rounded as torchvision's `Resize` and `CenterCrop` round.
    """
    short = round(margin * size)
    new_width = int(short * max(width / height, 1)) if width > height else short
    new_height = int(short * max(height / width, 1)) if height > width else short
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    x, y = width / new_width, height / new_height
    return left * x, top * y, min((left + size) * x, width), min((top + size) * y, height)


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of evaluations: a picture becomes pixels, and pixels become the input of a model."""

    image_size: int
    """Height and width in pixels."""
    margin: float
    """Shorter side before the center crop, divided by `image_size`."""
    normalize: Normalize

    @staticmethod
    def parse(card: Mapping[str, Any]) -> "Preprocess":
        """Return the preprocessing that `StudentCard.preprocessing` describes. Raises UserError if it is not images."""
        if card.get("kind") != "images":
            raise UserError(f"this model does not take images but {card.get('kind')}")
        return Preprocess(int(card["image_size"]), float(card["margin"]), Normalize.parse(card["normalize"]))

    def read(self, file: File) -> Tensor:
        """Return the pixels of a picture, uint8 `[H, W, 3]`. Raises UserError if it cannot be read; one line."""
        choose = partial(center_box, size=self.image_size, margin=self.margin)
        return torch.from_numpy(np.array(square(file, self.image_size, choose)))

    def pixels(self, image: Any) -> Tensor:
        """Return the pixels of one image, uint8 `[H, W, 3]`.

        Args:
            image: PIL image, path, or an array or tensor: uint8 `[H, W]`, `[H, W, C]` or `[C, H, W]` with C = 1, 3 or 4
                (the fourth is opacity), or uint16 `[H, W]`.

        Raises:
            UserError: If it is nothing of that kind, or cannot be read.
        """
        if isinstance(image, _FILES):
            return self.read(image)
        array = np.asarray(image.cpu() if isinstance(image, Tensor) else image)
        if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
            array = array.transpose(1, 2, 0)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        color = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
        grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
        if not (color or grey) or not array.size:
            raise UserError(f"an image must be uint8 [H, W, 3], got {array.dtype} {list(array.shape)}")
        return self.read(Image.fromarray(np.ascontiguousarray(array)))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the input of a model, float32 `[N, 3, H, W]`, of uint8 `[N, H, W, 3]`."""
        return self.normalize(pixels)


def reason(error: Exception) -> str:
    """Return in one line why a picture cannot be read."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"
    told = error.strerror if isinstance(error, OSError) else None
    return told or " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _one_line(file: File) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # PIL's plugins raise many kinds: OSError, SyntaxError, ValueError, struct.error
        raise UserError(f"cannot read {_name(file)}: {reason(error)}") from error


def _name(file: File) -> str:
    if isinstance(file, str | PathLike):
        return fspath(file)
    return str(file.filename or "the image") if isinstance(file, ImageFile.ImageFile) else "the image"


@contextmanager
def _open(file: File) -> Iterator[Image.Image]:
    if isinstance(file, Image.Image):
        yield file
        return
    if isinstance(file, bytes | bytearray | memoryview):
        file = BytesIO(file)
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large, but not too large; odd but harmless tags
        image = Image.open(file)
    with image:
        yield image


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none or it cannot be read."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        image.load()  # PIL turns a TIFF itself; a PNG may have it behind the pixels. Outside the lock: this takes long
    try:
        with _warnings, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # PIL's parser raises many kinds, and the pixels are right
        return 1
    return orientation if orientation in _TURNS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
