"""A chain of teachers: each link is an ordinary run that the next one learns from, and is trained once."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kd_lightning import runs
from kd_lightning.runs.students import load_student
from kd_lightning.training.chain import chain_links, link_config, train_chain
from kd_lightning.utils.checks import UserError
from tests.conftest import Finished, compose

pytestmark = pytest.mark.usefixtures("no_pictures")
Cli = Callable[..., Finished]
CHAIN = (
    "model.chain=[resnet14,resnet8,wrn_16_1]",
    "trainer.max_epochs=4",
    "model.teacher_cache=off",
    "teacher_stage.max_epochs=6",
)


def folder() -> Path:
    [found] = Path("outputs/chains").iterdir()
    return found


def test_each_link_is_taught_by_the_one_before_and_told(cli: Cli) -> None:
    done = cli(*CHAIN, "seed=5")
    assert done.status == 0, done.err
    first, second = folder() / "1_resnet8", folder() / "2_wrn_16_1"
    assert runs.below(folder()) == [first, second] and folder().name.startswith("resnet14-resnet8-wrn_16_1-")
    a, b = runs.read(first), runs.read(second)
    assert (a.config.model.teacher, a.config.model.student) == ("resnet14", "resnet8")
    assert (b.config.model.teacher, b.config.model.student) == ("resnet8", "wrn_16_1")
    assert b.config.model.teacher_weights == str(first) and b.config.model.chain is None
    assert (a.config.seed, b.config.seed) == (6, 5), "the last one has the seed that was typed"
    assert b.config.data.seed == 5
    told = b.metrics["teacher"]["test"]
    assert told["accuracy"] == pytest.approx(a.student["test"]["accuracy"], abs=1e-6)
    for word in ("link 1 of 2: resnet14 teaches resnet8", "link 2 of 2", f"{told['accuracy']:.2%}", str(second)):
        assert word in done.out, done.out
    assert not Path("outputs/train").exists(), "no empty folder of another kind"

    again = cli(*CHAIN, "seed=5")
    assert again.status == 0 and again.out.count("finished before, not trained again") == 2
    assert runs.read(second).metrics == b.metrics


@pytest.mark.slow
def test_a_chain_goes_on_where_it_stopped(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*CHAIN, "hydra.run.dir=whole").status == 0

    class Crash(Exception):
        """A machine that fails."""

    def stop(self: Any, *args: Any) -> None:
        if self.current_epoch == 1 and type(self.student).__name__ == "WideResNet":
            raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr("kd_lightning.distiller.Distiller.on_train_epoch_start", stop)
        cli(*CHAIN)
    assert runs.is_finished(folder() / "1_resnet8") and not runs.is_finished(folder() / "2_wrn_16_1")
    before = (folder() / "1_resnet8" / "metrics.json").stat().st_mtime_ns
    done = cli(*CHAIN)
    assert done.status == 0 and done.out.count("finished before, not trained again") == 1, done.err
    assert (folder() / "1_resnet8" / "metrics.json").stat().st_mtime_ns == before
    states = [load_student(path / "2_wrn_16_1")[0].state_dict() for path in (folder(), Path("whole"))]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), "as if it had never stopped"


def test_generations_are_one_network_with_other_initial_weights(cli: Cli) -> None:
    done = cli("model.generations=2", "model.teacher=resnet56", "teacher_stage.max_epochs=6", "trainer.max_epochs=4")
    assert done.status == 0, done.err
    paths = [folder() / "1_resnet8", folder() / "2_resnet8"]
    assert runs.below(folder()) == paths and folder().name.startswith("born-again-2-")
    configs = [runs.read(path).config for path in paths]
    assert [c.model.teacher for c in configs] == ["resnet8", "resnet8"]
    seeds = [configs[0].teacher_stage.seed, *(c.seed for c in configs)]
    assert seeds == [2, 1, 0], "no generation begins with the weights of another"


def test_the_first_teacher_may_come_from_a_file_with_arguments_of_its_own(teacher_run: Path) -> None:
    cfg = compose(
        "model.chain=[resnet8,{name:wrn_16_1,kwargs:{}},resnet8]",
        f"model.teacher_weights={teacher_run}",
        "model.teacher_normalize=cifar10",
    )
    links = chain_links(cfg.model)
    first, second = (link_config(cfg, links, i, Path("before")).model for i in (1, 2))
    assert first.teacher_weights == str(teacher_run) and first.teacher_normalize == "cifar10"
    assert second.teacher_weights == "before" and second.teacher_normalize is None
    assert (second.teacher, second.student, second.chain) == ("wrn_16_1", "resnet8", None)


@pytest.mark.parametrize(
    "words, told",
    [
        (("model.chain=resnet8",), "model.chain must be a list of two or more networks"),
        (("model.chain=[resnet8]",), "model.chain must be a list of two or more networks"),
        (("model.chain=[]",), "model.chain must be a list of two or more networks"),
        (("model.chain=[resnet8,null]",), "model.chain[1] must be the name of a network"),
        (("model.chain=[resnet8,{kwargs:{}}]",), "model.chain[1] must be the name of a network"),
        (("model.chain=[resnet14,resnet8,resnet7]",), "model.chain[2]: unknown model 'resnet7'; did you mean 'resnet"),
        (("model.chain=[resnet8,{name:resnet8,kwargs:{depth:3}}]",), "model.chain[1]: resnet8 refuses its arguments"),
        (("model.chain=[resnet14,resnet8]", "loss=ce"), "this loss has no teacher"),
        (("model.chain=[resnet14,resnet8]", "model.generations=2"), "give one of them"),
        (("model.chain=[resnet14,resnet8]", "+model.student_kwargs.a=1"), "a chain has several students"),
        (("model.chain=[resnet14,resnet8]", "model.student_weights=a.pt"), "its students start from random weights"),
        (("model.chain=[resnet14,resnet8]", "model.teacher_weights=none.pt"), "none.pt does not exist"),
        (("model.chain=[resnet14,resnet8,wrn_16_1]", "loss.temperature=-1"), "loss.temperature"),
        (("model.generations=0",), "model.generations must be a whole number >= 1, got 0"),
        (("model.generations=half",), "model.generations must be a whole number >= 1, got 'half'"),
    ],
)
def test_a_wrong_chain_is_one_line_before_anything_is_trained(cli: Cli, words: tuple[str, ...], told: str) -> None:
    done = cli(*words)
    assert done.status == 2 and told in done.err and len(done.err.splitlines()) == 1, done.err
    assert not runs.below(Path("outputs"))


def test_a_mistake_of_the_last_link_stops_the_first(cli: Cli) -> None:
    """Layers of the last student that are not there are found by building it."""
    done = cli("model.chain=[resnet14,resnet8,vgg8]", "loss=sp", "loss.student_layers=bn1", "loss.teacher_layers=bn1")
    assert done.status == 2 and "no layer 'bn1' in VGG" in done.err and not runs.below(Path("outputs")), done.err


def test_one_link_is_an_error_of_the_list_itself() -> None:
    with pytest.raises(UserError, match="two or more"):
        chain_links(compose("model.chain=[resnet8]").model)


def test_links_are_checked_without_lightnings_notices(tmp_path: Path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)  # as its import leaves it
    with pytest.raises(UserError, match="two or more"):
        train_chain(compose("model.chain=[resnet8]"), tmp_path)
    assert logging.getLogger("lightning.pytorch").level == logging.WARNING
