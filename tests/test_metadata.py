"""What surrounds the package says the same as the package."""

from pathlib import Path

import pytest
import yaml

tomllib = pytest.importorskip("tomllib")  # Python 3.11
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert citation["cff-version"] == "1.2.0" and citation["authors"]


def test_the_changelog_begins_with_what_is_not_released() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0] == "## Unreleased"


def test_ci_runs_what_a_new_user_does() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert jobs["docs"]["steps"][-1]["run"] == "mkdocs build --strict" and "docs" in PROJECT["optional-dependencies"]
    job = jobs["run"]
    assert job["steps"][-1]["run"] == ".ci/run" and (ROOT / ".ci/run").stat().st_mode & 0o100
    named = {word.rpartition(" ")[2] for word in PROJECT["classifiers"] if "Python :: 3." in word}
    assert named == set(job["strategy"]["matrix"]["python"])


@pytest.mark.parametrize("word", ["constraints.txt", 'ENTRYPOINT ["kd"]'])
def test_the_image_is_made_as_the_readme_says(word: str) -> None:
    assert word in (ROOT / "Dockerfile").read_text() and "kd" in PROJECT["scripts"]
