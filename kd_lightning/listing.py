"""Lists of the networks for `model.student` and the losses for `loss`, one line each."""

import inspect
import shutil
import textwrap
from functools import partial

from kd_lightning.config import CONF_DIR


def losses() -> list[str]:
    """Return the presets in conf/loss, each with the first line of its file."""
    files = sorted((CONF_DIR / "loss").glob("*.yaml"))
    found = {file.stem: file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for file in files}
    return [*_lines(found), "", 'One of your own: CONTRIBUTING.md, "Add a loss". Formulas: docs/methods.md']


def models() -> list[str]:
    """Return the networks for small images, text and audio, each with what it is, and where others come from."""
    from kd_lightning.models.create import BUILT_IN, OTHER, model_names  # torch takes seconds to import
    from kd_lightning.models.imagenet import torchvision_names

    found = {}
    for name in model_names():
        made = BUILT_IN.get(name)
        if made is None:
            found[name] = "torchvision's, with a stem for small images up to 64 pixels"
        else:
            module = inspect.getmodule(made.func if isinstance(made, partial) else made)
            found[name] = (inspect.getdoc(module) or "").splitlines()[0]
    for kind, (_, networks) in OTHER.items():
        for name, network in networks.items():
            found[name] = f"{kind}: " + (inspect.getdoc(network) or "").splitlines()[0]
    others = sorted(set(torchvision_names()) - set(found))
    return [
        *_lines(found),
        "",
        *textwrap.wrap(f"Of torchvision, for larger images: {', '.join(others)}.", _width()),
        "Also timm/NAME (pip install timm), and any function by its path: my.nets.small",
    ]


def _lines(found: dict[str, str]) -> list[str]:
    wide = max(map(len, found)) + 2
    return [
        f"{name:<{wide}}{textwrap.shorten(text, _width() - wide, placeholder=' …')}" for name, text in found.items()
    ]


def _width() -> int:
    return max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
