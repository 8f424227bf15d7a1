"""A teacher that runs faster says the same."""

import pytest
import torch
from torch import nn

from kd_lightning.models import create_model
from kd_lightning.models.create import BUILT_IN
from kd_lightning.teachers.fold import fold
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.types import Batch, batch_of

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def trained(name: str) -> nn.Module:
    """With BatchNorm statistics that a fold cannot ignore."""
    torch.manual_seed(0)
    model = create_model(name, 10, image_size=32).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_folded_it_says_the_same(name):
    model = trained(name)
    said, count = model(X), norms(model)
    fast = fold(model, X, "32-true")
    assert float((fast(X) - said).abs().max()) <= 1e-5 * float(said.abs().max())
    assert norms(fast) == 0 or (name.startswith("wrn") and norms(fast) < count), "pre-activation nets keep some"
    assert norms(model) == count and torch.equal(model(X), said), "the model itself stays as it was"


@torch.no_grad()
def test_in_bf16_it_is_as_near_as_autocast():
    model = trained("resnet20")
    fast = fold(model, X, "bf16-mixed")
    with torch.autocast("cpu", torch.bfloat16):
        folded, live = fast(X).float(), model(X).float()
    exact = model(X)
    assert (folded - exact).norm() < 2 * (live - exact).norm() and (live - exact).norm() > 0
    assert {p.dtype for m in fast.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()} == {torch.bfloat16}


class Decides(nn.Module):
    """Cannot be traced: which way it goes depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))


@torch.no_grad()
def test_what_cannot_be_traced_stays_as_it_is():
    model = Decides().eval()
    fast = fold(model, X, "32-true")
    assert norms(fast) == 1 and torch.equal(fast(X), model(X))


class UsesBoth(nn.Module):
    """The convolution's output goes to BatchNorm and, as it is, past it: folding would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10)
        nn.init.uniform_(self.norm.weight, 2, 3)

    def forward(self, x):
        x = self.conv(x)
        return (x + self.norm(x)).mean((2, 3))


@torch.no_grad()
def test_a_norm_that_is_bypassed_is_not_folded():
    model = UsesBoth().eval()
    torch.testing.assert_close(fold(model, X, "32-true")(X), model(X))


class ReadsTwice(nn.Module):
    """What ReLU and sum are given is read again later: neither may write there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.keep = nn.Conv2d(3, 3, 3, padding=1), nn.Identity()

    def forward(self, x):
        y = self.conv(x)
        z = torch.relu(y) + y
        w = self.keep(x) + z
        return torch.cat([torch.relu(x), x + y, w, z, torch.relu(w) + 1, y], dim=1).mean((2, 3))


@torch.no_grad()
def test_nothing_is_overwritten_that_is_read_again():
    model, x = ReadsTwice().eval(), X.clone()
    fast = fold(model, x, "32-true")
    assert torch.equal(fast(x), model(x)) and torch.equal(x, X)


@torch.no_grad()
def test_residual_sums_and_their_relus_are_done_in_place():
    code = fold(trained("resnet20"), X, "32-true").code
    assert code.count("relu_(") == 19 and code.count("+=") + code.count("iadd") == 9


def test_a_fast_teacher_counts_and_moves_as_before():
    teacher = LiveTeacher(trained("resnet8"))
    y = torch.zeros(4, dtype=torch.int64)
    said = teacher(Batch(X, y, y)).logits
    teacher.optimize_for_inference(batch_of(X, 4), "32-true")
    torch.testing.assert_close(teacher(Batch(X, y, y)).logits, said, rtol=1e-5, atol=1e-5)
    assert norms(teacher.models[0]) == 7
    half = LiveTeacher(trained("resnet8"))
    half.optimize_for_inference(batch_of(X, 4), "bf16-mixed")
    assert half(Batch(X, y, y)).logits.dtype == torch.bfloat16, "also where no one casts"
    teacher.apply_(lambda t: t.double() if t.is_floating_point() else t)
    assert teacher(Batch(X.double(), y, y)).logits.dtype == torch.float64
