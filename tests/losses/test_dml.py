"""Deep mutual learning of several students."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from kd_lightning import runs
from kd_lightning.losses import DML
from kd_lightning.losses.networks import Networks
from kd_lightning.models.probe import Probe
from kd_lightning.runs.students import load_student
from kd_lightning.training.run import train
from kd_lightning.types import Batch, Outputs, StudentCard
from kd_lightning.utils.checks import UserError
from tests.conftest import compose

T = 2.0


def test_each_of_four_learns_from_the_mean_of_the_others() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    nets = [nn.Linear(5, 3).double() for _ in range(4)]
    loss = DML(temperature=T, students=4)
    card = StudentCard("net", {}, (), {}, {})
    loss.prepare(Networks(Probe(nets[0], x), None, 6, lambda number: nets[number], card))
    assert list(loss.peers) == nets[1:]
    terms = loss(Outputs(nets[0](x)), None, Batch(x, y, torch.arange(6)))
    (F.cross_entropy(nets[0](x), y) + sum(terms.values())).backward()
    for net in nets:  # its gradient is that of its own loss alone, the others' answers being constants
        z = net(x)
        own = F.cross_entropy(z, y)
        for other in nets:
            if other is not net:
                p = (other(x).detach() / T).softmax(1)
                own = own + T**2 / 3 * (p * (p.log() - (z / T).log_softmax(1))).sum(1).mean()
        wanted = torch.autograd.grad(own, net.weight)[0]
        torch.testing.assert_close(net.weight.grad, wanted, rtol=1e-5, atol=1e-7)  # the cross-entropy is float32


@pytest.mark.usefixtures("no_pictures")
def test_the_best_of_three_is_deployed_and_the_others_stay(tmp_path: Path) -> None:
    words = ("loss=dml", "loss.students=3", "loss.deploy=best", "trainer.max_epochs=2")
    metrics = train(compose(*words), tmp_path / "run")
    student = metrics["student"]["last"]
    assert len(student["cohort"]) == 3 and student["cohort"][0] == max(student["cohort"])
    assert student["val"]["accuracy"] == pytest.approx(student["cohort"][0])
    first = torch.load(tmp_path / "run" / runs.LAST, weights_only=True)["state_dict"]
    states = [load_file(tmp_path / "run" / name) for name in (runs.STUDENT, "peer_1.safetensors", "peer_2.safetensors")]
    layer = "fc.weight"  # its sum stays as it began: different sums are different initial weights
    names = [f"student.{layer}", *(f"loss.method._peers.{i}.{layer}" for i in (0, 1))]
    kept = {float(state[layer].sum()) for state in states}
    assert kept == {float(first[name].sum()) for name in names} and len(kept) == 3
    assert load_student(tmp_path / "run")[1].name == "resnet8"
    taught = compose("loss=kd", f"model.teacher_weights={tmp_path / 'run' / 'peer_1.safetensors'}")
    assert train(taught, tmp_path / "taught")["teacher"]["test"]["accuracy"] > 0.1


@pytest.mark.parametrize(
    ("word", "told"),
    [("loss.students=1", r"loss\.students must be .*2"), ("loss.deploy=all", r"loss\.deploy must be .*first.*best")],
)
def test_a_wrong_value_is_one_line(word: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        train(compose("loss=dml", word), tmp_path / "run")
