"""What mkdocs cannot know by itself: pages made of docstrings, README and CONTRIBUTING as pages, and source files.

mkdocs.yml names this file as its hook. Pages link to files of the repository as they do on any host of Git; on the site
each such file is a page of its own, so that no link leaves it.
"""

import importlib
import inspect
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files outside of docs/ that are pages, and their places on the site."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".md": "markdown"}
LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")
"""A link to a file; those with a colon go elsewhere."""
str = str


def losses() -> str:
    """Return the page of all methods: a section for each class, under the presets that use it."""
    presets: dict[str, list[str]] = {}
    for path in sorted((ROOT / "conf" / "loss").glob("*.yaml")):
        for target in _targets(yaml.safe_load(path.read_text())):
            presets.setdefault(target, []).append(path.stem)
    parts = [
        "# Losses",
        "Every class is a `Method` with an `alpha` and a `ce_weight`. [Table with formulas](../methods.md).",
    ]
    for target in sorted(presets, key=lambda name: name.rpartition(".")[2].lower()):
        used = ", ".join(f"`loss={name}`" for name in presets[target])
        parts.append(f"{_docstring(target)}\n\nPresets: {used}")
    return "\n\n".join([*parts, *(_docstring(f"kd_lightning.losses.{name}") for name in BASE)]) + "\n"


BASE = ("Method", "Distillation", "Combination", "Fusion", "Networks", "Schedule")
API = {
    "api/losses.md": losses,
    "api/formulas.md": lambda: _public("Formulas", ["kd_lightning.losses.functional"]),
    "api/python.md": lambda: _named(
        "Use from Python",
        *("kd_lightning.load", "kd_lightning.deploy.loader.Model", "kd_lightning.distiller.Distiller"),
        *("kd_lightning.types", "kd_lightning.schedules", "kd_lightning.deploy.pruned", "kd_lightning.deploy.int8"),
        "kd_lightning.deploy.sparse",
    ),
    "api/data.md": lambda: _public("Data", ["kd_lightning.data"]),
    "api/models.md": lambda: _public("Models", ["kd_lightning.models"]),
}
"""Place on the site → what makes the page."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/ (called by mkdocs)."""
    from mkdocs.structure.files import File

    made = {place: make() for place, make in API.items()}
    made |= {place: (ROOT / name).read_text() for name, place in PAGES.items()}
    linked = {path for place, text in made.items() for path in _linked(text, _origin(place))}
    for file in files.documentation_pages():
        linked |= set(_linked(file.content_string, _origin(file.src_uri)))
    made |= {_place(path): _source(path) for path in linked if _place(path).startswith("source/")}
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return the page with its links to files of the repository turned into links of the site (called by mkdocs)."""
    here = page.file.src_uri
    return markdown if here.startswith("source/") else relinked(markdown, _origin(here), here)


def relinked(markdown: str, origin: str, here: str) -> str:
    """Return `markdown`, a file at `origin` in the repository and at `here` on the site, with links of the site."""

    def new(match: re.Match[str]) -> str:
        place = _place(_target(match[1], origin))
        return f"]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{match[2] or ''})"

    return LINK.sub(new, markdown)


def _linked(markdown: str, origin: str) -> Iterable[str]:
    return (_target(match[1], origin) for match in LINK.finditer(markdown))


def _target(link: str, origin: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def _origin(place: str) -> str:
    """Return the file of the repository that is at a place of the site."""
    return next((name for name, page in PAGES.items() if page == place), f"docs/{place}")


def _place(path: str) -> str:
    """Return where a file of the repository is on the site. Raises FileNotFoundError if there is no such file."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/") and path.removeprefix("docs/") in API:
        return path.removeprefix("docs/")
    if not (ROOT / path).exists():
        raise FileNotFoundError(f"a page links to {path}, which does not exist")
    if path.startswith("docs/") and Path(path).suffix in (".md", ".png", ".ipynb"):
        return path.removeprefix("docs/")
    return f"source/{path}.md"


def _source(path: str) -> str:
    """Return a page that shows a file, or lists a folder."""
    if (ROOT / path).is_dir():
        names = sorted(p.name for p in (ROOT / path).iterdir() if p.suffix in LANGUAGES)
        return f"# {path}\n\n" + "\n".join(f"- `{name}`" for name in names) + "\n"
    text = (ROOT / path).read_text()
    return f"# {path}\n\n````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text.rstrip()}\n````\n"


def _targets(node: Any) -> list[str]:
    """Return the classes of methods that a preset names, without those that only combine others."""
    if not isinstance(node, dict):
        return []
    inner = [target for value in node.values() for target in _targets(value)]
    return inner or ([node["_target_"]] if "_target_" in node else [])


def _docstring(name: str) -> str:
    return f"::: {_home(name)}"


def _home(name: str) -> str:
    """Return the path of an object where it is defined: packages offer it again."""
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute, None)
    return f"{found.__module__}.{attribute}" if inspect.isclass(found) or inspect.isfunction(found) else name


def _named(title: str, *names: str) -> str:
    return "\n\n".join([f"# {title}", *map(_docstring, names)]) + "\n"


def _public(title: str, modules: Iterable[str]) -> str:
    """Return a page of all classes and functions that modules offer."""
    names = []
    for module in modules:
        offered = vars(importlib.import_module(module))
        names += [f"{module}.{k}" for k, v in offered.items() if inspect.isclass(v) or inspect.isfunction(v)]
    return _named(title, *sorted(names, key=lambda name: name.rpartition(".")[2].lower()))
