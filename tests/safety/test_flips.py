"""A changed bit in a weights file is found wherever the file is read, and the line names the file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import kd_lightning
from kd_lightning import evaluate, runs
from kd_lightning.deploy.files.write import export
from kd_lightning.evaluation.opened import open_run
from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.runs.students import weights_file
from kd_lightning.teachers.stored_file import _read, write_stored
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import broken_entry
from kd_lightning.utils.seal import OPEN, SEAL, is_broken
from tests.conftest import Finished

KEY = "model.teacher_weights"


def flip(path: Path) -> None:
    """Change the exponent of some weight near the end of a file, where no header is."""
    data = bytearray(path.read_bytes())
    data[int(0.7 * len(data)) // 4 * 4 + 3] ^= 64
    path.write_bytes(bytes(data))


@pytest.fixture
def run(distilled: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, which a test then turns bad."""
    return Path(shutil.copytree(distilled, tmp_path / "run"))


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("", runs.STUDENT),
        (f"/{runs.STUDENT}", runs.STUDENT),
        ("@best", runs.BEST),
        (f"/{runs.BEST}", runs.BEST),
        (f"/{runs.LAST}", runs.LAST),
    ],
)
def test_weights_are_checked_however_they_are_named(run: Path, given: str, file: str) -> None:
    model = create_model("resnet8", 10, image_size=8)
    load_weights(model, weights_file(f"{run}{given}", KEY), KEY)
    flip(run / file)
    with pytest.raises(UserError, match=rf"{file} is damaged"):
        load_weights(model, weights_file(f"{run}{given}", KEY), KEY)


def test_weights_are_checked_wherever_they_were_copied_to(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(run / runs.STUDENT, tmp_path / "net.safetensors"))
    model = create_model("resnet8", 10, image_size=8)
    load_weights(model, copy, KEY)
    flip(copy)
    with pytest.raises(UserError, match=r"net\.safetensors is damaged: its checksum is wrong"):
        load_weights(model, copy, KEY)


def test_an_exported_file_is_checked(run: Path, tmp_path: Path) -> None:
    path, _ = export(open_run(run), "safetensors", tmp_path / "x.safetensors")
    assert kd_lightning.load(path).classes
    flip(path)
    with pytest.raises(UserError, match="its checksum is wrong"):
        kd_lightning.load(path)


def test_stored_answers_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "answers.safetensors"
    write_stored(path, torch.randn(40, 3), {"classes": ["a", "b", "c"]})
    assert not is_broken(path)
    flip(path)
    with pytest.raises(UserError, match=r"answers\.safetensors is damaged .*its checksum is wrong"):
        _read(path, f"{KEY}: {path}")


def test_a_file_without_a_seal_is_not_broken(tmp_path: Path) -> None:
    for content in (b"weights", f'"{SEAL}": "{OPEN}"'.encode()):
        (tmp_path / "x.onnx").write_bytes(content)
        assert not is_broken(tmp_path / "x.onnx")


def test_a_checkpoint_of_others_is_checked_by_its_own_checksums(tmp_path: Path) -> None:
    model = create_model("resnet8", 10, image_size=8)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    assert broken_entry(tmp_path / "x.pth") is None
    flip(tmp_path / "x.pth")
    with pytest.raises(UserError, match="wrong checksum of"):
        load_weights(model, tmp_path / "x.pth", KEY)


def test_verify_names_the_checkpoint(command: Callable[..., Finished], run: Path) -> None:
    flip(run / runs.BEST)
    done = command(evaluate, "--verify", run)
    assert done.status == 2 and "best.ckpt is damaged" in done.err and "Traceback" not in done.err


def test_verify_names_the_teacher(
    command: Callable[..., Finished], teacher_run: Path, run: Path, tmp_path: Path
) -> None:
    teacher = Path(shutil.copytree(teacher_run, tmp_path / "teacher"))
    flip(teacher / runs.STUDENT)
    done = command(evaluate, "--verify", run, f"model.teacher_weights={teacher / runs.STUDENT}")
    told = " ".join(done.out.split())
    assert "damaged" in told and "teacher" in told and "the student is evaluated alone" in told, done
