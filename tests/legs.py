"""Try the package with other versions of what it needs: `python -m tests.legs LEG [what pytest is given]`.

    oldest      the smallest versions that pyproject.toml allows, in an environment of their own
    hydra-next  the newest pre-release of Hydra 1.4 and of its plugin for joblib, above this environment
    audit       known vulnerabilities of the versions in constraints.txt, by pip-audit

The first two run the fast tests there, or those that are named; warnings of other versions are no errors. `audit` fails
also where it cannot learn about a package.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "outputs" / "legs"


def minima() -> list[str]:
    """Return `name==version` for each lower bound in pyproject.toml, of the package and of its extra `dev`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    todo = [Requirement(line) for line in (*project["dependencies"], *extras["dev"])]
    for requirement in todo:
        todo += [Requirement(line) for extra in requirement.extras for line in extras[extra]]
    bounds = {r.name: s.version for r in todo for s in r.specifier if s.operator == ">="}
    return [f"{name}=={version}" for name, version in bounds.items()]


def environment(name: str, above_this: bool, *requirements: str) -> Path:
    """Return the interpreter of an environment with `requirements`, made if there is none."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        if above_this:
            site = next(folder.glob("lib/python*/site-packages"))
            (site / "borrowed.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
    subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True)
    return python


def run_tests(python: Path, words: list[str]) -> int:
    """Run the tests with another interpreter; return pytest's status."""
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default", "--disable-warnings")
    return subprocess.run([python, *pytest, *words], cwd=ROOT).returncode


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.legs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("leg", choices=("oldest", "hydra-next", "audit"))
    leg, words = parser.parse_known_args()
    if leg.leg == "oldest":
        sys.exit(run_tests(environment("oldest", False, *minima()), words))
    if leg.leg == "hydra-next":
        newer = ("--pre", "hydra-core>=1.4.0rc1", "hydra-joblib-launcher>=1.4.0rc1")
        sys.exit(run_tests(environment("hydra-next", True, *newer), words))
    python = environment("audit", False, "pip-audit")
    audit = ("-m", "pip_audit", "--strict", "--disable-pip", "--no-deps", "-r", "constraints.txt")
    sys.exit(subprocess.run([python, *audit], cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
