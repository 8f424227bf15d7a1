"""Exported files as teachers: they say what the network said that they were written from."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kd_lightning import runs
from kd_lightning.deploy.files.write import export
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.verify import verify
from kd_lightning.runs.names import teacher_name
from kd_lightning.teachers.build import build_teacher
from kd_lightning.teachers.exported import weights_checksum
from kd_lightning.training.build import build_experiment
from kd_lightning.training.run import train
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import names_own_code, trusting
from tests.conftest import compose

pytestmark = [
    pytest.mark.usefixtures("no_pictures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
KEY = "model.teacher_weights"
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def write(teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """`write("onnx", preprocessing=True)`: such a file of `teacher_run`, each kind written once."""
    folder, known = tmp_path_factory.mktemp("files"), {}

    def written(form: str, **how: Any) -> Path:
        key = f"{form}{sorted(how.items())}"
        if key not in known:
            path = folder / f"{len(known)}.{form}"
            export(open_run(teacher_run), form, path, **({"raw": True} | how))
            known[key] = path
        return known[key]

    return written


def answers(*words: str) -> torch.Tensor:
    """What the teacher of a configuration says to the first validation samples."""
    run = build_experiment(compose("model.teacher_cache=off", *words))
    batch: Batch = next(iter(run.data.loader("val")))
    return build_teacher(run.teachers, run.data).evaluate(batch).logits


@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize("how", [{"dynamic_batch": True}, {}, {"preprocessing": True}])
def test_a_file_says_what_the_run_says(write: Write, teacher_run: Path, form: str, how: dict[str, bool]) -> None:
    live = answers(f"{KEY}={teacher_run}")
    for name in ("model.teacher=file", "model.teacher=resnet56"):
        told = answers(name, f"{KEY}={write(form, **how)}")
        torch.testing.assert_close(told, live, rtol=1e-3, atol=1e-3)


def test_a_file_of_ours_knows_its_own_normalization_and_classes(write: Write, teacher_run: Path) -> None:
    """The data's statistics may be others: the file still sees the pixels as it was trained on them."""
    other = "data.normalize={mean:[0.2,0.2,0.2],std:[0.5,0.5,0.5]}"
    live = answers(f"{KEY}={teacher_run}")
    for how in ({"dynamic_batch": True}, {"preprocessing": True}):
        told = answers(other, "model.teacher=file", f"{KEY}={write('onnx', **how)}")
        torch.testing.assert_close(told, live, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_it_teaches_with_a_cache_and_is_found_again(write: Write, form: str, tmp_path: Path) -> None:
    path = write(form, dynamic_batch=True)
    cfg = compose(f"{KEY}={path}", f"model.teacher_cache={tmp_path / 'cache'}", "data.augment.pad=0")
    metrics = train(cfg, tmp_path / "run")
    assert metrics["teacher"]["test"]["accuracy"] > 0.3
    assert (metrics["teacher"]["parameters"] > 0) == (form == "pt2")
    assert list((tmp_path / "cache").rglob("*.bin")), "its answers are kept"
    result = verify(tmp_path / "run")
    assert result.ok and "teacher accuracy" in {check.name for check in result.checks}, result.notes
    assert teacher_name(runs.read(tmp_path / "run").config) == path.name


def test_a_file_beside_a_network(write: Write, teacher_run: Path) -> None:
    live = answers(f"{KEY}={teacher_run}").softmax(1)
    both = answers("model.teacher=[file,resnet8]", f"{KEY}=[{write('onnx')},{teacher_run}]")
    torch.testing.assert_close(both.softmax(1), live, rtol=1e-3, atol=1e-3)


def test_a_strangers_onnx_file_of_a_fixed_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval()
    torch.onnx.export(net, (torch.zeros(7, 3, 8, 8),), tmp_path / "net.onnx", dynamo=True, verbose=False)
    run = build_experiment(compose("model.teacher=file", f"{KEY}={tmp_path / 'net.onnx'}"))
    batch = next(iter(run.data.loader("val")))  # not a multiple of seven
    torch.testing.assert_close(run.teachers[0].model(batch.x), net(batch.x), rtol=1e-4, atol=1e-5)
    before, weights = weights_checksum(tmp_path / "net.onnx"), tmp_path / "net.onnx.data"
    weights.write_bytes(bytes(255 - byte for byte in weights.read_bytes()))  # the same graph with other weights
    assert weights_checksum(tmp_path / "net.onnx") != before


# Bad input


def linear(classes: int, size: int, path: Path) -> Path:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, classes))
    shapes = ({0: torch.export.Dim("batch")},)
    example = (torch.zeros(2, 3, size, size),)
    torch.onnx.export(net, example, path, dynamo=True, verbose=False, dynamic_shapes=shapes)
    return path


@pytest.mark.parametrize(
    "words, told",
    [
        (("model.teacher=file",), "model.teacher=file needs an exported file, .onnx or .pt2"),
        (("model.teacher=file", f"{KEY}=a.pt"), "a.pt must be an exported file, .onnx or .pt2"),
        ((f"{KEY}=none.onnx",), "none.onnx does not exist; give an exported file"),
        ((f"{KEY}=cut.onnx",), "cut.onnx is damaged or cannot be run here"),
        ((f"{KEY}=cut.pt2", "trust=true"), "cut.pt2 is damaged or cannot be run here"),
        ((f"{KEY}=cut.pt2",), "cut.pt2 is a program, and torch.export.load may run code in it; nothing of it was run"),
        ((f"{KEY}=GOOD", "+model.teacher_kwargs.width=3"), "model.teacher_kwargs: an exported file takes none"),
        ((f"{KEY}=GOOD", "loss=fitnets"), "stored answers and exported files give logits only"),
        ((f"{KEY}=GOOD", "loss=simkd"), "stored answers and exported files give logits only"),
        ((f"{KEY}=SIZE",), "model.teacher: the network cannot take the inputs of this data set"),
        ((f"{KEY}=CLASSES",), "model.teacher: the network gives [2, 7] for 2 samples, but the data wants [2, 10]"),
    ],
)
def test_a_wrong_file_is_one_line(
    cli: Any, words: tuple[str, ...], told: str, write: Write, tmp_path: Path, capfd: Any
) -> None:
    content = write("onnx", dynamic_batch=True).read_bytes()
    for suffix in ("onnx", "pt2"):
        (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    files = {"GOOD": write("onnx", dynamic_batch=True)}
    if "SIZE" in words[0]:
        files["SIZE"] = linear(10, 16, tmp_path / "size.onnx")
    if "CLASSES" in words[0]:
        files["CLASSES"] = linear(7, 8, tmp_path / "classes.onnx")
    for name, path in files.items():
        words = tuple(word.replace(name, str(path)) for word in words)
    done = cli(*words)
    assert done.status == 2 and told in done.err and len(done.err.splitlines()) == 1, done.err


def test_without_onnxruntime(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("onnx")
    monkeypatch.setattr("kd_lightning.teachers.exported.importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs onnxruntime: pip install 'kd_lightning\[export\]'"):
        build_experiment(compose(f"{KEY}={path}"))


def test_a_program_named_by_a_strangers_run_is_not_run(write: Write, tmp_path: Path) -> None:
    """`torch.export.load` unpickles and evaluates what is in the file."""
    path = Path(shutil.copy(write("pt2", dynamic_batch=True), tmp_path / "net.pt2"))
    cfg = compose(f"{KEY}={path}", "model.teacher_cache=off")
    train(cfg, tmp_path / "run")
    with trusting(False):
        teacher, note = open_run(tmp_path / "run").teacher_if_found()
    assert teacher is None and note is not None and "nothing of it was run" in note and "--trust" in note
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    assert names_own_code(plain), "resume says trust=true"
