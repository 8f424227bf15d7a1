"""A folder of photos `<split>/<class>/*`: what is in it, and whether it can be read."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from kd_lightning.utils.checks import UserError, did_you_mean

Photos = list[tuple[Path, int]]
"""Files with their class index, ordered by path."""


def scan(root: Path) -> tuple[list[str], dict[str, Photos]]:
    """Class names (those of `train`, sorted) and the photos of the splits that are there.

    Raises UserError if the root, `train`, or images of a class are missing, or if the splits differ in classes.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root}: there is no such folder ({root.absolute()})")
    if not (root / "train").is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir())
        hint = did_you_mean("train", there) or f"; it has {', '.join(there) or 'no folders'}"
        raise UserError(f"data.root={root} must have a folder train with one folder of images per class{hint}")
    classes = _subfolders(root / "train")
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} must have one folder per class, at least 2, got {len(classes)}: {classes}")
    photos = {split: _photos(root / split, classes) for split in ("train", "val", "test") if (root / split).is_dir()}
    return classes, photos


def _subfolders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _photos(folder: Path, classes: list[str]) -> Photos:
    found = _subfolders(folder)
    missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    if missing or extra:
        what = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has also {', '.join(extra)}"] * bool(extra)
        raise UserError(f"{folder} must have the same classes as train, but it {' and '.join(what)}")
    suffixes = {suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN}
    photos: Photos = []
    for label, name in enumerate(classes):
        files = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in suffixes and p.name[0] != ".")
        if not files:
            raise UserError(f"class folder {folder / name} has no images; add some or remove the folder")
        photos += [(path, label) for path in files]
    return photos


def open_rgb(path: Path) -> Image.Image:
    """The photo as the camera was held, in RGB; transparency is dropped, 16-bit grey keeps its upper 8 bits."""
    with Image.open(path) as file:
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.mode == "I;16":
            image = image.point(lambda value: value / 256).convert("L")
        if "transparency" in image.info:
            image = image.convert("RGBA")
        return image.convert("RGB")


def verify(photos: Sequence[tuple[Path, int]], size: int) -> None:
    """Decodes every file once, JPEG at about `size` pixels, which is fast. Raises UserError that lists damaged ones."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(partial(_damage, size=size), [path for path, _ in photos])
        damaged = [f"{path} ({why})" for (path, _), why in zip(photos, reasons, strict=True) if why]
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise UserError(
            f"cannot read {', '.join(damaged[:5])}{more}; remove or replace (data.verify=false skips this check)"
        )


def _damage(path: Path, size: int) -> str | None:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))
            image.load()
    except Exception as error:  # PIL's plugins raise many kinds: OSError, SyntaxError, ValueError, struct.error
        return "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
    return None
