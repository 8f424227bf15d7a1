"""Activations are those that a layer said, whatever follows it."""

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.utils.checks import UserError


class Shifted(nn.Module):
    """A block of two layers, as large networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def forward(self, x: Tensor) -> Tensor:
        shifted: Tensor = self.block(x).relu_()
        return shifted


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_relu_in_place_leaves_a_single_layer_as_it_was(mode: type) -> None:
    """As behind each BatchNorm of torchvision's VGG and DenseNet."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True)).eval()
    x = torch.randn(16, 4)
    with mode():
        wanted = model[1](model[0](x))
        said = FeatureExtractor(model, ["1"])(x)
    assert wanted.min() < 0 and torch.equal(said.features["1"], wanted)
    assert torch.equal(said.logits, wanted.relu())


def test_a_block_that_is_overwritten_is_refused() -> None:
    with pytest.raises(UserError, match="layer 'block' of Shifted is overwritten in place by what follows it"):
        FeatureExtractor(Shifted(), ["block"])(torch.randn(8, 4))
    assert FeatureExtractor(Shifted().eval(), ["block.1"])(torch.randn(64, 4)).features["block.1"].min() < 0
