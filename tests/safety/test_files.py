"""A file is written whole or not at all, and like any other file of the user."""

import errno
from pathlib import Path

import pytest
import torch

from kd_lightning.models import create_model
from kd_lightning.runs.students import save_weights
from kd_lightning.teachers.stored_file import write_stored
from kd_lightning.utils.files import write_text, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_the_writer_returns_comes_back_and_its_file_keeps_the_suffix(tmp_path: Path) -> None:
    def write(partial: Path) -> str:
        assert partial.parent == tmp_path and partial.suffix == ".txt" and partial.name != "a.txt"
        partial.write_text("new")
        return "written"

    assert write_whole(tmp_path / "a.txt", write) == "written"
    assert (tmp_path / "a.txt").read_text() == "new" and names(tmp_path) == ["a.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "no space")

    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "a.txt", fail)
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_exclusive_never_writes_over(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old", exclusive=True)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a.txt", "new", exclusive=True)
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["answers.safetensors", "answers.npz", "weights.safetensors"])
def test_files_of_tensors_are_as_readable_as_others(tmp_path: Path, name: str) -> None:
    plain, path = tmp_path / "plain.txt", tmp_path / name
    plain.touch()
    if name.startswith("weights"):
        save_weights(path, create_model("resnet8", num_classes=3))
    else:
        write_whole(path, lambda partial: write_stored(partial, torch.zeros(4, 3), {"classes": ["a", "b", "c"]}))
    assert path.stat().st_mode == plain.stat().st_mode
