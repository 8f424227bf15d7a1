"""Keeps `Matches:`, `Formula:` and `Paper:` of a method's docstring on lines of their own (an extension of griffe)."""

import re
from typing import Any

import griffe


class Lines(griffe.Extension):
    """Ends each of these lines with a line break of Markdown."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring:
            cls.docstring.value = re.sub(r"^((?:Matches|Formula): .+)$", r"\1  ", cls.docstring.value, flags=re.M)
