"""Networks for recordings: their layers, their size, and any number of frames."""

import pytest
import torch
from torch import nn

from kd_lightning.models import count_macs, count_parameters, create_model, head, stages
from kd_lightning.models.audio import AUDIO
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.utils.checks import UserError

FACTS = {"bands": 32, "frames": 34, "spectrogram": "any"}


def model(name: str, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, 10, kwargs=kwargs, **FACTS)


@pytest.mark.parametrize("name", AUDIO)
def test_layers_are_maps_and_every_parameter_learns(name: str) -> None:
    net, x = model(name), torch.randn(2, 1, 32, 34)
    names = stages(net)
    found = FeatureExtractor(net, [*names, f"{head(net)}:input"])(x)
    assert found.logits.shape == (2, 10) and all(found.features[stage].dim() == 4 for stage in names)
    assert found.features[f"{head(net)}:input"].shape == (2, net.get_submodule(head(net)).in_features)
    found.logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("name", AUDIO)
def test_any_number_of_frames(name: str) -> None:
    net = model(name).eval()
    assert net(torch.randn(3, 1, 32, 9)).shape == net(torch.randn(3, 1, 32, 100)).shape == (3, 10)


def test_the_student_fits_a_microcontroller() -> None:
    net = model("audio_dscnn")
    assert count_parameters(net) < 20_000 and count_macs(net, torch.randn(1, 1, 32, 34)) < 1.5e6
    assert count_parameters(model("audio_dscnn", width=80)) <= 30_000


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: create_model("audio_cnn", 2, image_size=32),
            "audio_cnn is a network for audio, and this data set has",
        ),
        (lambda: create_model("text_bag", 2, **FACTS), "text_bag is a network for text, and this data set has none"),
        (lambda: create_model("resnet8", 2, **FACTS), "resnet8 is a network for images.*one of audio_cnn, audio_crnn"),
        (lambda: create_model("audio_cnn", 2, pretrained=True, **FACTS), "audio_cnn has no pretrained weights"),
        (lambda: create_model("audio_cnn", 2, kwargs={"wide": 1}, **FACTS), "audio_cnn refuses its arguments"),
        (lambda: create_model("audio_dcnn", 2, image_size=32), "did you mean 'audio_dscnn'"),
    ],
)
def test_a_mistake_is_one_line(call, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)
