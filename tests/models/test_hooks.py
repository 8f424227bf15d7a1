"""Activations are those that a layer said, whatever follows it."""

import pytest
import torch
from torch import nn

from kd_lightning.models import create_model
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.models.probe import Probe


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


@pytest.mark.parametrize("name", ["densenet121", "vgg11_bn", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0"])
def test_every_network_has_its_stages(name: str) -> None:
    probe = Probe(create_model(name, 10, image_size=65), torch.zeros(2, 3, 65, 65))
    assert probe.layers("all", "loss.student_layers") and probe.shapes(probe.layers("last", "loss.student_layers"))


def test_the_input_of_a_layer_is_what_it_was_given() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True)).eval()
    assert FeatureExtractor(model, ["2:input"])(torch.randn(64, 4)).features["2:input"].min() < 0
