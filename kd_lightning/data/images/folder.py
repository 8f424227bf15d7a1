"""Folders of photos: `<split>/<class>/*`, or pictures without classes at any depth."""

import os
from collections import Counter
from pathlib import Path

from PIL import Image

from kd_lightning.data.class_folders import check_folder, has_classes, split_folders
from kd_lightning.data.class_folders import scan as scan_classes
from kd_lightning.data.find_files import FileKind
from kd_lightning.data.images.labels_file import KEY, Labels
from kd_lightning.data.images.photos import Photos
from kd_lightning.data.module import Split
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError

_NO_PICTURES = ("BUFR", "GRIB", "HDF5", "MPEG")  # formats that PIL knows by name and cannot decode
_HEIC = dict.fromkeys((".heic", ".heif"), "pip install 'kd_lightning[heic]' reads them")


def images() -> FileKind:
    """Return the files that PIL can decode, with the plug-ins that are installed."""
    forms = Image.registered_extensions().items()
    opened = {*Image.OPEN, "MPO"} - {*_NO_PICTURES}  # PIL opens MPO, which many cameras write, as a kind of JPEG
    readable = [suffix for suffix, form in forms if form in opened]
    return FileKind("images", frozenset(readable), _HEIC)


def scan(root: Path, used: Path | None = None, labels: Labels | None = None) -> tuple[list[str], dict[Split, Photos]]:
    """Return the class names, sorted or as in `labels`, and the photos of the splits that are there.

    A folder `train` without class folders has photos of unknown class; then the folders of `test`, or `labels`, name
    the classes. One line for each folder tells what is left out.

    Args:
        root: Folder of the splits.
        used: Folder beside them that has another purpose.
        labels: Classes of photos that lie in no folders of classes, in the teacher's order.

    Raises:
        UserError: If the root, `train`, or images of a class are missing, or if the splits differ in classes.
    """
    kind = images()
    places = split_folders(root, kind.noun, used)
    photos: dict[Split, Photos] = {}
    named: Split = "train"
    if not has_classes(places["train"]) and (unlabeled := _unlabeled(kind, places["train"])):
        if labels is not None:
            if len(places) > 1:
                raise UserError(
                    f"{KEY} says what val and test are, and {root} has a folder {list(places)[-1]}; leave out one"
                )
            return labels.classes, labels.divide(places["train"], unlabeled)
        if "test" not in places:
            raise UserError(
                f"{places['train']} has images, but no folder for each class; sort them into such folders. To train "
                f"without labels, make {root / 'test'} with a folder for each class, or give {KEY}=FILE, a new file in "
                "which the teacher names some images to measure on"
            )
        photos["train"], named = unlabeled, "test"
        del places["train"]
    if labels is not None and has_classes(root / "train"):
        raise UserError(
            f"{KEY} is for images without folders of classes, and {root / 'train'} has some; give {KEY}=null"
        )
    classes, found = scan_classes(places, kind, named)
    for split, files in found.items():
        photos[split] = Photos(list(map(os.fsencode, files.paths)), files.labels)
    return classes, photos


def scan_unlabeled(root: Path) -> Photos:
    """Return the pictures at any depth below `root`, without classes; a line tells what is left out.

    Raises:
        UserError: If there are none.
    """
    check_folder("data.unlabeled_root", root)
    photos = _unlabeled(images(), root)
    if not len(photos):
        raise UserError(f"data.unlabeled_root={root} has no images")
    return photos


def _unlabeled(kind: FileKind, root: Path) -> Photos:
    """Return the pictures at any depth below `root`; a line tells what is left out."""
    left_out = Counter[str]()
    paths = kind.below(root, left_out)
    kind.tell(root, left_out)
    return Photos(list(map(os.fsencode, paths)), [UNLABELED] * len(paths))
