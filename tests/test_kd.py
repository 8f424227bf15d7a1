"""`kd`: all commands under one name."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kd_lightning import __main__ as kd
from kd_lightning import cache
from kd_lightning.cli import clear_errors
from kd_lightning.config import CONF_DIR
from kd_lightning.models import model_names
from tests.conftest import Finished, environment, fresh_process

Kd = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kd:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kd", *words])
        monkeypatch.setenv("COLUMNS", "100")
        with fresh_process():
            try:
                kd.main()
                status = 0
            except SystemExit as e:
                status = int(e.code or 0)
        return status, *capsys.readouterr()

    return run


def test_each_command_is_there_and_told(run: Kd) -> None:
    status, out, _ = run("--help")
    assert status == 0 and all(f"\n  {name} " in out for name in (*kd.COMMANDS, *kd.LISTS))
    for name in kd.COMMANDS:
        assert (Path(kd.__file__).parent / f"{name}.py").is_file()


def test_a_misspelled_command_is_one_line_and_the_list(run: Kd) -> None:
    status, out, err = run("trian")
    assert status == 2 and out == "" and err.startswith("error: kd has no command 'trian'; did you mean 'train'?\n")


def test_losses_lists_every_preset(run: Kd) -> None:
    status, out, _ = run("losses")
    names = [line.split()[0] for line in out.split("\n\n")[0].splitlines()]
    assert status == 0 and names == sorted(path.stem for path in (CONF_DIR / "loss").glob("*.yaml"))
    assert all(len(line) <= 100 for line in out.splitlines())


def test_models_lists_every_built_in_one(run: Kd) -> None:
    status, out, _ = run("models")
    names = [line.split()[0] for line in out.split("\n\n")[0].splitlines()]
    assert (
        status == 0
        and names[: len(model_names())] == list(model_names())
        and {"text_bag", "audio_dscnn"} <= set(names)
        and "efficientnet_b0" in out
    )


@pytest.mark.parametrize("name", [name for name in kd.COMMANDS if name != "train"])
def test_help_of_a_command_is_its_own(name: str) -> None:
    command = [sys.executable, "-m", "kd_lightning", name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0 and f"usage: kd {name} " in done.stdout, done.stderr


def test_train_is_the_command_that_it_was(tmp_path: Path) -> None:
    words = ["train", "data=digits", "loss=no_such_loss"]
    command = [sys.executable, "-m", "kd_lightning", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: unknown option loss=no_such_loss")
    assert os.listdir(tmp_path) == []


def test_a_reader_that_has_enough_ends_the_command_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit, match="141"), clear_errors():
            print("a line")


def test_cache_as_module_has_a_help_of_its_own(command: Callable[..., Finished]) -> None:
    done = command(cache, "--help")
    assert done.status == 0 and done.out.startswith(
        "usage: python -m kd_lightning.cache [--export FILE [--top-k K]] [KEY=VALUE …]"
    )
    assert max(map(len, done.out.splitlines())) <= 80
