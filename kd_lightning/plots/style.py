"""The style of a comparison's figures, and inline SVG in the colours of the page around it, light or dark."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axis import Axis
from matplotlib.figure import Figure

INK = "#010203"  # drawn with it, shown in the colour of the page's text
COLORS = ("#3b82c4", "#dd7a26", "#3d9e62", "#c2527c", "#8a6fd1", "#a48a1e", "#2f9aa8", "#8a8a8a")
VERDICT_COLORS = {"better": "#2e9e5b", "worse": "#d2483f", "no difference shown": COLORS[0], "too few seeds": "#c98a1b"}
WIDTH = 4.5  # inches, so that text stays readable on a phone
STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "axes.unicode_minus": False,
}


def plain_numbers(axis: Axis, between: str = "25") -> None:
    """Write 1, 10 and so on, and the numbers that begin with one of `between`, at a logarithmic axis.

    Matplotlib writes powers as formulas, and those are not drawn, see `plots`.
    """
    axis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in between else "")
    axis.set_tick_params(which="minor", pad=5)  # their marks are shorter, and the numbers are to stand in one line


def short(name: str, length: int = 24) -> str:
    """Return a name that leaves room for the figure: of a long one the beginning."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def draw(name: str, make: Callable[..., Figure | None], *args: Any) -> str:
    """Return the figure of `make(*args)` as an SVG element, or an empty string if it returns None.

    Args:
        name: Keeps the ids of several figures in one page apart.
        make: Function that draws.
        args: Its arguments.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = make(*args)
        if figure is None:
            return ""
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'width="\S+" height="\S+"', f'role="img" aria-label="{name}"', text, count=1)
