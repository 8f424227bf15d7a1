"""Another kind of data passes through every command without one line of the core changed for it.

The data set, in `evaluate/tokens.py`, gives dictionaries of token ids and mask; the networks are named by dotted path.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_lightning import compare, compress, export, measure, predict, runs
from kd_lightning.deploy.files.formats import open_file
from kd_lightning.deploy.samples import samples
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.record import evaluate
from kd_lightning.models.hooks import logits_of
from kd_lightning.runs.students import load_student
from kd_lightning.training.fill import fill
from kd_lightning.training.run import train
from kd_lightning.utils import latency
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import trusting
from tests.conftest import Finished, compose

Command = Callable[..., Finished]
BAG, TRANSFORMER = "tests.evaluate.tokens.TokenNet", f"{__name__}.TinyTransformer"


class TinyTransformer(nn.Module):
    """One layer of attention over the tokens that the mask shows."""

    def __init__(self, num_classes: int, vocabulary: int, width: int = 16):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.randn(1, 5, width) / 4)
        self.layer1 = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.layer1(self.embed(ids) + self.place, src_key_padding_mask=mask == 0)
        return self.fc(h[:, 0])


def composed(folder: Path, *overrides: str) -> Any:
    common = ("trainer.max_epochs=4", "optimizer.lr=0.5", "teacher_stage.max_epochs=6")
    models = (f"model.student={BAG}", f"model.teacher={BAG}", "+model.teacher_kwargs.width=32")
    places = (f"teacher_stage.dir={folder / 'teachers'}", f"model.teacher_cache={folder / 'cache'}")
    cfg = compose(*common, *models, *places, *overrides)
    cfg.data = {"_target_": "tests.evaluate.tokens.TokenDataModule", "batch_size": 32}
    return cfg


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture(scope="module")
def distilled(place: Path) -> Path:
    with trusting():
        train(composed(place), place / "runs" / "kd")
    return place / "runs" / "kd"


def test_a_run_trains_its_teacher_learns_from_it_and_is_rebuilt(distilled: Path) -> None:
    metrics = runs.read(distilled).metrics
    assert metrics["teacher"]["test"]["accuracy"] > 0.9 and metrics["student"]["last"]["test"]["accuracy"] > 0.8
    assert metrics["teacher"]["parameters"] > metrics["student"]["parameters"] > 0 < metrics["student"]["macs"]
    with trusting():
        model, card = load_student(distilled)
    assert card.preprocessing == {"kind": "tokens"} and card.inputs == {"num_classes": 3, "vocabulary": 12}
    assert model(torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5)).shape == (2, 3)


def test_the_cache_changes_nothing_and_can_be_filled_ahead(distilled: Path, place: Path, tmp_path: Path) -> None:
    with trusting():
        live = train(composed(place, "model.teacher_cache=off"), tmp_path / "live")
        fill(composed(place, f"model.teacher_cache={tmp_path / 'filled'}"))
        filled = train(composed(place, f"model.teacher_cache={tmp_path / 'filled'}"), tmp_path / "b")
    cached = runs.read(distilled).metrics
    assert live["student"] == cached["student"] == filled["student"]
    with pytest.raises(UserError, match="teacher_cache=memory needs numbered views"), trusting():
        train(composed(place, "model.teacher_cache=memory"), tmp_path / "memory")


@pytest.mark.parametrize(
    "words",
    [
        ("loss=dkd",),
        ("loss=sp", "loss.student_layers=embed", "loss.teacher_layers=layer1", f"model.teacher={TRANSFORMER}"),
        ("loss=crd_kd", "loss.crd.negatives=16"),
        ("loss=crd", "loss.negatives=16"),
        ("loss=dml",),
        (f"model.teacher=[{BAG},{TRANSFORMER}]", "model.teacher_weighting=learned"),
    ],
    ids=["logits", "layers", "a combination", "memory", "mutual", "two teachers"],
)
def test_other_losses_and_several_teachers(words: tuple[str, ...], place: Path, tmp_path: Path) -> None:
    with trusting():
        metrics = train(composed(place, *words, "trainer.max_epochs=1"), tmp_path / "run")
    assert 0 < metrics["train"]["loss"] < 100 and metrics["student"]["last"]["test"]["accuracy"] > 0.2
    assert len(metrics.get("teacher", {}).get("weights", [])) == (2 if "[" in words[0] else "dml" not in words[0])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("model.student=resnet8", "resnet8 is a network for images, and this data set has none"),
        ("model.teacher_normalize=imagenet", "model.teacher_normalize is for images"),
        ("loss=attention", "cannot tell which layers of TokenNet give feature maps"),
    ],
)
def test_what_is_for_images_alone_is_refused_in_one_line(words: str, told: str, place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told) as caught, trusting():
        train(composed(place, words), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_evaluated_and_compared(distilled: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    with trusting():
        values = evaluate(distilled)
    assert values["teacher"] is not None and values["data"]["name"] == "tokens"
    done = command(compare, distilled.parent)
    assert done.status == 0, done.err
    assert (distilled.parent / "comparison.html").is_file()


def one_line(done: Finished) -> bool:
    return done.status == 2 and len(done.err.splitlines()) == 1 and done.err.startswith("error: ")


def test_files_are_not_predicted(distilled: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two")
    assert one_line(command(predict, distilled, tmp_path / "a.txt", "--trust"))


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_a_file_that_takes_dictionaries_answers_as_the_student(
    form: str, distilled: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / f"model.{form}"
    done = command(export, distilled, "--format", form, "--out", out, "--trust")
    assert done.status == 0, done.err
    with trusting(), torch.no_grad():
        run, file = open_run(distilled), open_file(out)
        x, _ = samples(run.data, "test", 20)
        expected = logits_of(run.student, x) / file.card.extra.get("divided_by", 1.0)
        torch.testing.assert_close(file.answer(x), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_made_smaller_and_measured(distilled: Path, command: Command, tmp_path: Path) -> None:
    words = ("--prune", "0.5", "--out", tmp_path / "sparse", "trainer.max_epochs=1", "--trust")
    done = command(compress, distilled, *words)
    assert done.status == 0, done.err
    assert runs.read(tmp_path / "sparse").metrics["compression"]["zeros"] == pytest.approx(0.5, abs=0.01)
    done = command(measure, distilled, "--runtimes", "eager", "--out", tmp_path / "measured", "--trust")
    assert done.status == 0, done.err
    assert (tmp_path / "measured" / "deployment.csv").is_file()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (("--prune", "0.5", "--structured"), "--prune 0.5 --structured removes no channel of TokenNet"),
        (("--quantize", "int8"), "--quantize: an input of tokens is several tensors; only nets of one are quantized"),
    ],
)
def test_a_network_that_cannot_be_made_smaller_so_is_refused(
    how: tuple[str, ...], told: str, distilled: Path, command: Command, tmp_path: Path
) -> None:
    done = command(compress, distilled, *how, "--out", tmp_path / "small", "trainer.max_epochs=1", "--trust")
    assert one_line(done) and told in done.err, done
    assert not (tmp_path / "small").exists()


class Grey(nn.Sequential):
    """Takes images of one channel; all data sets here have three."""

    def __init__(self, num_classes: int):
        super().__init__(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, num_classes))


def test_a_network_that_cannot_take_the_inputs_is_one_line(tmp_path: Path) -> None:
    with trusting(), pytest.raises(UserError, match="a network for images, and this data set has none"):
        train(composed(tmp_path, "model.student=resnet8", "loss=ce"), tmp_path / "run")
    with trusting(), pytest.raises(UserError, match=r"model\.student: the network cannot take the inputs"):
        train(compose("model.student=tests.test_seams.Grey", "loss=ce"), tmp_path / "run")
