"""Sizes against published ones."""

import pytest
import torch
from torch import nn

from kd_lightning.models import count_macs, count_parameters, create_model


@pytest.mark.parametrize(("name", "millions", "giga"), [("resnet18", 11.17, 0.555), ("resnet50", 23.52, 1.298)])
def test_small_stem_resnets_at_32_pixels(name: str, millions: float, giga: float) -> None:
    with torch.device("meta"):
        model = create_model(name, 10)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, abs=0.01)
    assert count_macs(model, torch.zeros(1, 3, 32, 32)) / 1e9 == pytest.approx(giga, abs=0.001)


def test_macs_of_one_convolution() -> None:
    assert count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 10)) == 3 * 8 * 9 * 10 * 10


def test_macs_of_an_lstm() -> None:
    class Last(nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0][:, -1]

    net = Last(5, 7, batch_first=True)
    assert count_macs(net, torch.zeros(2, 3, 5)) == 2 * 3 * 4 * 7 * (5 + 7)


def test_counting_leaves_modes_and_statistics_as_they_were() -> None:
    model = create_model("resnet8", 10)
    model.get_submodule("bn1").eval()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count_macs(model, torch.zeros(1, 3, 8, 8))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
