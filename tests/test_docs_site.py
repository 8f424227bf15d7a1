"""The site shows every page, every loss has a section, and no link is broken."""

import importlib.util
import posixpath
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.make_methods import PRESETS
from docs.site import pages

CONFIG = (pages.ROOT / "mkdocs.yml").read_text()


def test_every_loss_is_a_section() -> None:
    page = pages.losses()
    assert set(re.findall(r"`loss=(\w+)`", page)) == set(PRESETS)
    for name in re.findall(r"^::: (\S+)$", page, re.M):
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name


def test_every_page_is_in_the_navigation() -> None:
    places = re.findall(r": ([\w/]+\.md)$", CONFIG, re.M)
    documents = [path.name for path in (pages.ROOT / "docs").glob("*.md")]
    assert sorted(places) == sorted([*documents, *pages.API, *pages.PAGES.values()])


def test_links_lead_to_pages_of_the_site(tmp_path: Path) -> None:
    assert pages.relinked("[a](docs/data.md#text)", "README.md", "index.md") == "[a](data.md#text)"
    told = pages.relinked("[a](../kd_lightning/losses) [b](https://x.org/y)", "docs/methods.md", "methods.md")
    assert told == "[a](source/kd_lightning/losses.md) [b](https://x.org/y)"
    with pytest.raises(FileNotFoundError, match=r"a page links to docs/nowhere\.md"):
        pages.relinked("[a](nowhere.md)", "docs/data.md", "data.md")
    texts = {f"docs/{path.name}": f"{path.name}" for path in (pages.ROOT / "docs").glob("*.md")} | pages.PAGES
    for origin, place in texts.items():
        for link in pages.LINK.findall(pages.relinked((pages.ROOT / origin).read_text(), origin, place)):
            assert not posixpath.normpath(link[0]).startswith(".."), f"{origin} leaves the site by {link[0]}"


def test_methods_say_their_formulas_in_lines_of_their_own() -> None:
    griffe = pytest.importorskip("griffe")
    from docs.site.lines import Lines

    found = griffe.Class("KD", docstring=griffe.Docstring("KD.\n\nMatches: logits\nFormula: `x`\nPaper: P"))
    Lines().on_class(cls=found)
    assert found.docstring is not None and found.docstring.value.endswith("Matches: logits  \nFormula: `x`  \nPaper: P")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loss=dkd" in (tmp_path / "site/api/losses/index.html").read_text()
