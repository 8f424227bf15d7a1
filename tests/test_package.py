"""The package as a stranger meets it: its imports, its wheel, and every command line of its documentation."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from kd_lightning.config import CONF_DIR
from kd_lightning.train import READY
from tests.conftest import environment

ROOT = Path(__file__).parents[1]
COMMANDS = ("train", "cache", "compare", "evaluate", "predict", "compress", "export", "measure")
EXPERIMENTS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "conf/experiment").glob("*.yaml"))
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md")))


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


# Imports


def test_no_command_imports_torch_to_print_its_help() -> None:
    code = "import sys, importlib\nfor name in sys.argv[1:]:\n    importlib.import_module('kd_lightning.' + name)\n"
    code += "    print(name, [m for m in ('torch', 'lightning', 'torchvision', 'matplotlib') if m in sys.modules])"
    assert python(code, *COMMANDS).splitlines() == [f"{name} []" for name in COMMANDS]


def modules() -> list[str]:
    files = sorted((ROOT / "kd_lightning").rglob("*.py"))
    return [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in files]


@pytest.mark.slow
def test_every_module_can_be_imported_first() -> None:
    """A circle among modules shows only if one starts at the wrong end, so each one is the first of the package."""
    code = "import sys, importlib\nfor name in sys.argv[1:]:\n"
    code += (
        "    for known in [m for m in sys.modules if m.startswith('kd_lightning')]:\n        del sys.modules[known]\n"
    )
    code += "    importlib.import_module(name)\n"
    code = "import hydra.core.config_store, torch, lightning\n" + code
    assert python(code, *modules()) == ""


# The documentation


def command_lines() -> Iterator[tuple[str, str]]:
    """(page, line) of each command of this package in a bash block, or alone in a comment of an experiment.

    Lines that end with \\ are joined. In a comment, those with … are left out.
    """
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                if "kd_lightning." in line:
                    yield page, line.strip()
    for page in EXPERIMENTS:
        comments = re.sub(r"\\\n#\s*", " ", (ROOT / page).read_text())
        for line in re.findall(r"^#(?:.*:)? +(python -m kd_lightning\.(?!.*(?:\. |…)).*)$", comments, re.MULTILINE):
            yield page, line


LINES = list(dict.fromkeys(command_lines()))


def words_of(line: str) -> tuple[str, list[str]]:
    """The command and its words; what comes before and after it in the shell is left out."""
    words = shlex.split(line, comments=True)
    start = next(i for i, word in enumerate(words) if word.startswith("kd_lightning."))
    rest = words[start + 1 :]
    end = next((i for i, word in enumerate(rest) if word in ("&&", "|", ";", ">")), len(rest))
    return words[start].removeprefix("kd_lightning."), rest[:end]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}-{i}" for i, (page, _) in enumerate(LINES)])
def test_every_command_line_is_understood(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"|#.*", "", line)
    assert not re.search(r"[\[\]*?{}()~]|\$(?!\w)", unquoted), f"{page}: zsh would expand this: {line}"
    name, words = words_of(line)
    assert name in COMMANDS, line
    if name in ("train", "cache"):
        sweeps = bool({"-m", "--multirun"} & set(words))
        own = words.index("--config-dir") if "--config-dir" in words else None
        if own is not None:  # a folder that the page has the reader write, with a loss
            words = [word for word in words[:own] + words[own + 2 :] if not word.startswith("loss=")]
        overrides = [word for word in words if not word.startswith(("-", "resume="))]
        if sweeps:
            overrides = [READY.get(word, first(word)) for word in overrides]
        if importlib.util.find_spec("optuna") is None:  # its yaml builds on the plugin's
            overrides = [word for word in overrides if not word.startswith(("hydra/sweeper=", "hydra.sweeper."))]
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            hydra.compose("train", overrides=overrides, return_hydra_config=True)
        return
    module = importlib.import_module(f"kd_lightning.{name}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *words, "--no-such-flag"])
    with pytest.raises(SystemExit) as caught:
        module.main()
    told = capsys.readouterr().err
    assert caught.value.code == 2 and told.rstrip().endswith("unrecognized arguments: --no-such-flag"), told


def first(override: str) -> str:
    """The first of the values that an override sweeps over."""
    key, equals, value = override.partition("=")
    if not equals or value[:1] in "[{'\"":
        return override
    if found := re.fullmatch(r"(?:range|interval)\((.*)\)", value):
        return f"{key}={found[1].split(',')[0]}"
    return f"{key}{equals}{value.split(',')[0]}"


def test_there_are_command_lines() -> None:
    assert {words_of(line)[0] for _, line in LINES} >= {"train", "compare", "evaluate", "predict", "compress", "export"}
    assert len(LINES) > 20
    assert {page for page, _ in LINES} >= set(EXPERIMENTS), "each says how it is run"


# The wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which the wheel is installed, and nothing of this checkout."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    own = folder / "env/bin/python"
    site = Path(subprocess.run(
        [own, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    ).stdout.strip())  # fmt: skip
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # What it depends on is that of this environment, but for the link to this checkout.
    (site / "borrowed.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
    return own


@pytest.mark.slow
def test_the_quick_start_runs_from_the_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    env = {k: v for k, v in environment().items() if k != "PYTHONPATH"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([installed, *words], cwd=tmp_path, env=env, capture_output=True, text=True)

    where = run("-c", "import kd_lightning, kd_lightning.config as c; print(kd_lightning.__file__, c.CONF_DIR)")
    assert str(ROOT) not in where.stdout and "env/lib" in where.stdout, where.stdout + where.stderr
    brief = ("trainer.max_epochs=1", "teacher_stage.max_epochs=2", "seed=0,1", "loss=ce,kd")
    done = run("-m", "kd_lightning.train", "experiment=quickstart", *brief)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (sweep,) = (tmp_path / "outputs" / "sweep").iterdir()
    assert (sweep / "comparison.html").is_file() and len(list(sweep.glob("*/metrics.json"))) == 4
    (student,) = list(sweep.glob("3_*"))
    done = run("-m", "kd_lightning.evaluate", "--verify", str(student))
    assert done.returncode == 0, done.stderr
    assert not [name for name in os.listdir(tmp_path) if name != "outputs"]
