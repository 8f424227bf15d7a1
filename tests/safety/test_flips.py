"""A changed bit in a weights file is found wherever the file is read, and the line names the file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kd_lightning import evaluate, runs
from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.runs.students import weights_file
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import broken_entry
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
