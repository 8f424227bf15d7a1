"""Networks for text: what the mask hides has no effect, and their layers can be read."""

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.models import count_macs, count_parameters, create_model, head, stages
from kd_lightning.models.hooks import FeatureExtractor, logits_of
from kd_lightning.models.text import TEXT
from kd_lightning.utils.checks import UserError

FACTS = {"vocabulary": 50, "max_length": 24, "padding": 0, "tokenizer": "abc"}


def model(name: str, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, 3, kwargs=kwargs, **FACTS).eval()


def sentences(*lengths: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (len(lengths), 24), generator=generator)[:, :width]
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return {"ids": ids.masked_fill(~mask, 0), "mask": mask}


@pytest.mark.parametrize("name", TEXT)
def test_padding_and_neighbours_change_no_logit(name: str) -> None:
    net = model(name)
    together = logits_of(net, sentences(3, 11, 1, 16, width=24))
    alone = torch.cat([logits_of(net, {k: v[i : i + 1, :n] for k, v in sentences(3, 11, 1, 16, width=24).items()})
                       for i, n in enumerate((3, 11, 1, 16))])  # fmt: skip
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    other = sentences(3, 11, 1, 16, width=24)
    other["ids"] = torch.where(other["mask"], other["ids"], 7)  # what lies in the padding
    torch.testing.assert_close(logits_of(net, other), together, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", TEXT)
def test_layers_are_maps_that_a_loss_can_train(name: str) -> None:
    net, x = model(name), sentences(5, 8, width=8)
    names = stages(net)
    features = FeatureExtractor(net, [*names, f"{head(net)}:input"])(x).features
    for stage in names:
        b, _, length, one = features[stage].shape
        assert (b, length, one) == (2, 8, 1) and not features[stage][0, :, 5:].any()
    features[names[-1]].square().sum().backward()
    assert net.get_parameter("embed.weight").grad is not None
    assert features[f"{head(net)}:input"].shape == (2, net.get_submodule(head(net)).in_features)


@pytest.mark.parametrize("name", TEXT)
def test_every_parameter_learns(name: str) -> None:
    net = model(name).train()
    logits_of(net, sentences(24, 9, width=24)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_arguments_size_and_order() -> None:
    small, large = model("text_cnn"), model("text_cnn", channels=256, kernels=[2, 3])
    assert count_parameters(small) < count_parameters(large)
    x = sentences(8, width=8)
    assert count_macs(small, x) > 0
    turned = {"ids": x["ids"].flip(1), "mask": x["mask"]}
    for name in TEXT:
        same = torch.allclose(logits_of(model(name), x), logits_of(model(name), turned), atol=1e-5)
        assert same == (name == "text_bag")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: create_model("text_bag", 2, image_size=32), "text_bag is a network for text, and this data"),
        (lambda: create_model("resnet8", 2, **FACTS), "resnet8 is a network for images.*text_transformer"),
        (lambda: create_model("text_bag", 2, pretrained=True, **FACTS), "text_bag has no pretrained weights"),
        (lambda: create_model("text_bag", 2, kwargs={"wide": 1}, **FACTS), "text_bag refuses its arguments"),
        (lambda: create_model("text_bag", 2, kwargs={"width": "a"}, **FACTS), "text_bag refuses .*: TypeError: empty"),
        (
            lambda: create_model("text_cnn", 2, kwargs={"dropout": 2}, **FACTS),
            "text_cnn refuses .*: ValueError: dropout",
        ),
        (lambda: create_model("text_bilstn", 2, image_size=32), "did you mean 'text_bilstm'"),
    ],
)
def test_a_mistake_is_one_line(call, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)
