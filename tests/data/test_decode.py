"""The one decoder: what a reader would see, or one line; never silently black, white or turned."""

import struct
import tracemalloc
import warnings
import zlib
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from kd_lightning.data import Normalize, Preprocess, decode
from kd_lightning.data.images.decode import center_box, square
from kd_lightning.utils.checks import UserError

RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
PREPROCESS = Preprocess(16, 8 / 7, Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.3)))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def mean(file) -> float:
    return float(np.asarray(decode(file)).mean())


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(orientation, suffix, tmp_path):
    """Whatever way a camera stores the picture, it comes out as PIL's own reading of the tag."""
    stored = noise(20, 10)
    exif = stored.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    stored.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]  # numbers of PIL's transpositions
    wanted = stored if turned is None else stored.transpose(Image.Transpose(turned))
    np.testing.assert_array_equal(np.asarray(decode(path)), np.asarray(wanted))
    whole = square(path, 20, lambda width, height: (0, 0, width, height))  # as training and evaluation read it
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(wanted.resize((20, 20), Image.Resampling.BILINEAR)))


def exif_bytes(*entries: tuple[int, int, int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0\0\0\0"


TURNED = (0x112, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize(
    ("exif", "size"),
    [
        (exif_bytes(TURNED, (0x11A, 2, 4, b"72 \0")), (40, 60)),  # types that are not the tag's own
        (exif_bytes(TURNED, (0x100, 6, 1, b"\xff\0\0\0")), (40, 60)),
        (exif_bytes(TURNED, (0x100, 2, 4, b"72 \0")), (40, 60)),
        (exif_bytes((0x112, 3, 1, struct.pack("<HH", 77, 0))), (60, 40)),  # there is no orientation 77
        (exif_bytes((0x112, 2, 4, b"abc\0")), (60, 40)),
        (b"Exif\0\0II*\0\xff\xff\xff\xff", (60, 40)),
        (b"Exif\0\0nonsense", (60, 40)),
    ],
)
def test_damaged_exif_is_no_error(exif, size):
    file = BytesIO()
    noise(60, 40).save(file, "JPEG", exif=exif)
    assert decode(file.getvalue()).size == size
    assert PREPROCESS.read(file.getvalue()).shape == (16, 16, 3)


def deep_grey(folder: Path) -> list[Path]:
    Image.fromarray(RAMP).save(folder / "a.png")
    Image.fromarray(RAMP).save(folder / "little.tif")
    Image.frombytes("I;16B", (64, 64), RAMP.astype(">u2").tobytes()).save(folder / "big.tif")
    (folder / "a.pgm").write_bytes(b"P5\n64 64\n65535\n" + RAMP.astype(">u2").tobytes())
    Image.fromarray(RAMP.astype(np.int32)).save(folder / "integer.tif")
    Image.fromarray((RAMP / 65535).astype(np.float32)).save(folder / "float.tif")
    return sorted(folder.iterdir())


def test_deep_grey_keeps_its_range(tmp_path):
    for path in deep_grey(tmp_path):
        assert mean(path) == pytest.approx(127.5, abs=1), path.name
        assert float(PREPROCESS.read(path).float().mean()) == pytest.approx(127.5, abs=2), path.name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.int32) * 1000, "32-bit grey from 0 to 65535000"),
        ((RAMP >> 8).astype(np.int32), "32-bit grey from 0 to 255, its range is not known"),
        (-RAMP.astype(np.int32), "32-bit grey from -65535 to 0"),
        ((RAMP / 257).astype(np.float32), "floating-point grey from 0 to 255, not 0 to 1"),
        (np.full((4, 4), np.nan, np.float32), "floating-point grey from nan"),
        (RAMP >> 4, "16-bit grey from 0 to 4095, its range is not known"),  # 12 bits, as of microscopes and X-rays
        (RAMP >> 8, "16-bit grey from 0 to 255, its range is not known"),
    ],
)
def test_grey_of_unknown_range_is_refused(values, message, tmp_path):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=f"cannot read .*a.tif: {message}") as error:
        decode(tmp_path / "a.tif")
    assert "\n" not in str(error.value)


def sixteen_bit_png(values: np.ndarray, color_type: int) -> bytes:
    """PIL reads such files, and writes none: `values` uint16 `[H, W, C]`."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("channels", "color_type"), [(3, 2), (4, 6), (2, 4)], ids=["RGB", "RGBA", "LA"])
def test_deep_color_keeps_its_range_or_is_refused(channels, color_type):
    opaque = [np.full_like(RAMP, 65535)] * (channels % 2 == 0)
    colors = channels - len(opaque)
    assert mean(sixteen_bit_png(np.stack([RAMP] * colors + opaque, -1), color_type)) == pytest.approx(127.5, abs=1)
    with pytest.raises(UserError, match="16-bit color whose values are all below 4,096, nearly black"):
        decode(sixteen_bit_png(np.stack([RAMP >> 4] * colors + opaque, -1), color_type))


def test_transparent_parts_are_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    half = Image.new("LA", (4, 4), (0, 128))
    palette = Image.new("P", (4, 4), 0)
    for image, name, wanted in ((clear, "a.png", 255), (half, "b.png", 127), (palette, "c.gif", 255)):
        image.save(tmp_path / name, **({"transparency": 0} if image is palette else {}))
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / name)), wanted)
    opaque = noise(9, 9)
    np.testing.assert_array_equal(np.asarray(decode(opaque.convert("RGBA"))), np.asarray(opaque))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_modes_become_rgb(mode):
    assert decode(noise(5, 4).convert(mode)).mode == "RGB"


@pytest.mark.parametrize("size", [(40, 30), (30, 47), (8, 8), (5, 3), (37, 1000), (640, 480)])
@pytest.mark.parametrize("margin", [1.0, 8 / 7])
def test_the_center_is_that_of_torchvision(size, margin):
    """Cropping before resizing changes no more than the rounding of PIL's filters."""
    image = noise(*size)
    whole = v2.Compose([v2.Resize(round(32 * margin)), v2.CenterCrop(32)])(image)
    got = square(image, 32, partial(center_box, size=32, margin=margin))
    assert int(np.abs(np.asarray(whole, int) - np.asarray(got, int)).max()) <= 1


def test_an_image_of_the_right_size_is_left_alone():
    image = noise(16, 16)
    np.testing.assert_array_equal(Preprocess(16, 1.0, PREPROCESS.normalize).read(image).numpy(), np.asarray(image))


def test_thin_pictures_need_no_memory():
    """Resizing 2 x 20,000 pixels to a shorter side of 256 would need 2 GB."""
    for image in (noise(20_000, 2), noise(2, 20_000)):
        tracemalloc.start()
        pixels = Preprocess(224, 8 / 7, PREPROCESS.normalize).read(image)
        assert pixels.shape == (224, 224, 3) and tracemalloc.get_traced_memory()[1] < 2e6
        tracemalloc.stop()
        left, top, right, bottom = center_box(image.width, image.height, 224, 8 / 7)
        assert (right - left) * (bottom - top) < 4  # so that PIL makes no more than the square


def test_large_pictures_are_read_and_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for side, wanted in ((40, None), (50, "cannot read the image: more than 0 million pixels")):
        file = BytesIO()
        noise(side, side).save(file, "PNG")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if wanted is None:
                assert decode(file.getvalue()).size == (side, side)
                continue
            with pytest.raises(UserError) as error:
                decode(file.getvalue())
        assert str(error.value) == wanted


def test_one_picture_however_it_is_given(tmp_path):
    noise(50, 40).save(tmp_path / "a.png")
    path, image = tmp_path / "a.png", Image.open(tmp_path / "a.png")
    wanted = PREPROCESS.read(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy())
    for given in (path, str(path), path.read_bytes(), image, array, tensor, tensor.permute(2, 0, 1)):
        assert torch.equal(PREPROCESS.pixels(given), wanted)
    deep = [PREPROCESS.pixels(given) for given in (RAMP, Image.fromarray(RAMP))]
    assert torch.equal(*deep) and deep[0].float().mean() == pytest.approx(127.5, abs=2)


def test_a_card_gives_the_preprocessing_back():
    card = {"kind": "images", "image_size": 16, "margin": 8 / 7, "normalize": PREPROCESS.normalize._asdict()}
    parsed = Preprocess.parse(card)
    assert parsed == PREPROCESS
    x = parsed(torch.stack([parsed.pixels(noise(20, 20))] * 2))
    assert x.shape == (2, 3, 16, 16) and x.dtype == torch.float32
    with pytest.raises(UserError, match="does not take images but text"):
        Preprocess.parse({"kind": "text"})


@pytest.mark.parametrize("given", [np.zeros((4, 4, 3), np.float32), np.zeros((5, 4, 7), np.uint8), np.zeros((0, 4, 3))])
def test_arrays_that_are_no_images(given):
    with pytest.raises(UserError, match=r"an image must be uint8 \[H, W, 3\], got"):
        PREPROCESS.pixels(given)


@pytest.mark.parametrize(
    ("content", "why"), [(b"hello", "not an image"), (None, "No such file or directory"), (b"", "not an image")]
)
def test_what_cannot_be_read_is_told_in_one_line(content, why, tmp_path):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        PREPROCESS.read(path)
    assert str(error.value) == f"cannot read {path}: {why}"


def test_a_jpeg_at_a_fraction_of_its_size_looks_the_same(tmp_path):
    """Draft mode is for training only; it keeps twice the pixels wanted, also of a picture that was turned."""
    smooth = noise(20, 15).resize((1000, 750), Image.Resampling.BICUBIC)
    exif = smooth.getexif()
    exif[0x0112] = 6
    smooth.save(tmp_path / "a.jpg", exif=exif, quality=95)
    for box in ((0, 0, 750, 1000), (100, 500, 600, 900)):
        exact, fast = (
            np.asarray(square(tmp_path / "a.jpg", 40, lambda width, height, box=box: box, exact), int)
            for exact in (True, False)
        )
        assert np.abs(exact - fast).mean() < 3  # a picture turned or cut otherwise: 80


def test_heic(tmp_path):
    pytest.importorskip("pillow_heif")
    noise(20, 10).save(tmp_path / "a.heic")
    assert decode(tmp_path / "a.heic").size == (20, 10)
