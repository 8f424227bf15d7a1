"""The look-up: which name gives which net, and what a mistake is told."""

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from kd_lightning.models import create_model, head, stages
from kd_lightning.models.imagenet import AS_PUBLISHED
from kd_lightning.utils.checks import UserError


def tiny(num_classes: int, width: int = 4, pretrained: bool = False) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Linear(width, num_classes))
    net.was_pretrained = pretrained
    return net


def not_a_model(num_classes: int) -> int:
    return num_classes


def broken(num_classes: int) -> nn.Module:
    raise TypeError("a mistake inside the user's function")


@pytest.mark.parametrize(("size", "kernel", "pool"), [(64, (3, 3), nn.Identity), (65, (7, 7), nn.MaxPool2d)])
def test_image_size_chooses_the_stem(size: int, kernel: tuple[int, int], pool: type) -> None:
    model: Any = create_model("resnet18", 10, image_size=size)
    assert model.conv1.kernel_size == kernel
    assert isinstance(model.maxpool, pool)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_whose_weights_want_other_inputs_make_them(name: str) -> None:
    """torchvision does so wherever it loads the weights; without, inputs are about twice too large."""
    with torch.device("meta"):
        plain: Any = create_model(name, 10, image_size=299)
        published: Any = create_model(name, 10, kwargs=AS_PUBLISHED[name], image_size=299)
    assert published.transform_input and not plain.transform_input, "students of before stay as they are"


def test_a_name_that_both_have_is_torchvisions_for_large_images() -> None:
    with torch.device("meta"):
        assert head(create_model("vgg11", 10)) == "fc"
        assert head(create_model("vgg11", 10, image_size=224)) == "classifier.6"


def test_a_torchvision_name() -> None:
    model = create_model("mobilenet_v3_small", 6).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 6)
    assert stages(model) == ("features",)
    assert isinstance(model.get_submodule(head(model)), nn.Linear)


def test_a_transformer_of_torchvision_is_told_the_image_size() -> None:
    with torch.device("meta"):
        model = create_model("vit_b_16", 3, image_size=32)
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    with pytest.raises(UserError, match="cannot tell which layers of VisionTransformer"):
        stages(model)


def test_arguments_reach_the_net() -> None:
    assert (
        create_model("resnet18", 10, kwargs={"zero_init_residual": True})
        .get_parameter("layer1.0.bn2.weight")
        .count_nonzero()
        == 0
    )
    assert create_model("mobilenetv2", 10, kwargs={"width": 0.25}).get_parameter("stem.0.0.weight").shape[0] == 8


def test_a_dotted_path() -> None:
    model: Any = create_model(f"{__name__}.tiny", 5, kwargs={"width": 6})
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert model[1].out_features == 6
    assert head(model) == "2"
    assert not model.was_pretrained
    chosen: Any = create_model(f"{__name__}.tiny", 5, pretrained=True)
    assert chosen.was_pretrained


def sized(num_classes: int, vocabulary: int, **facts: Any) -> nn.Module:
    net = nn.Linear(vocabulary, num_classes)
    net.facts = facts
    return net


def test_a_dotted_path_is_given_the_facts_of_the_data_that_it_asks_for() -> None:
    told = {"vocabulary": 7, "length": 5}
    model: Any = create_model(f"{__name__}.sized", 3, **told)
    assert model.in_features == 7 and model.facts == {"length": 5}
    assert create_model(f"{__name__}.tiny", 3, **told) is not None, "and no others"
    mine: Any = create_model(f"{__name__}.sized", 3, kwargs={"vocabulary": 9}, **told)
    assert mine.in_features == 9, "what the user says counts"
    with pytest.raises(UserError, match=r"model\.student: resnet8 is a network for images, .* dotted path"):
        create_model("resnet8", 3, **told)


def test_a_timm_name() -> None:
    pytest.importorskip("timm")
    model = create_model("timm/resnet10t", 4).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert stages(model) == ("layer1", "layer2", "layer3", "layer4")
    with pytest.raises(UserError, match=r"model\.student: timm has no model 'resnet10'; did you mean 'timm/resnet10t'"):
        create_model("timm/resnet10", 4)
    with pytest.raises(UserError, match=r"timm/resnet10t refuses its arguments.*widht"):
        create_model("timm/resnet10t", 4, kwargs={"widht": 2})
    with pytest.raises(UserError, match="timm/resnet10t refuses its arguments"):
        create_model("timm/resnet10t", 4, kwargs={"key": 3})


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"'timm/resnet10t' needs timm: pip install 'kd_lightning\[timm\]'"):
        create_model("timm/resnet10t", 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5", {}, r"^model\.teacher: unknown model 'resnet5'; did you mean 'resnet50'\? .*timm/NAME"),
        ("efficientnetb0", {}, "did you mean 'efficientnet_b0'"),
        ("xyzzy", {}, r"unknown model 'xyzzy'\. Built in are resnet18, .*shufflenetv2"),
        (None, {}, "must be the name of a model, got None"),
        ("resnet20", {"kwargs": {"depht": 3}}, "resnet20 refuses its arguments: .*'depht'; it takes .*num_classes"),
        ("resnet18", {"kwargs": {"depht": 3}}, "resnet18 refuses its arguments: .*'depht'"),
        ("no_such_package.nets.f", {}, "cannot import 'no_such_package.nets' .*PYTHONPATH"),
        (".f", {}, "cannot import ''"),
        (f"{__name__}.tinny", {}, "'tinny' does not exist in module .*did you mean 'tiny'"),
        (f"{__name__}.__name__", {}, "'__name__' is not callable"),
        (
            f"{__name__}.tiny",
            {"kwargs": {"widht": 2}},
            r"tiny refuses its arguments: .*'widht'; it takes \(num_classes",
        ),
        (f"{__name__}.not_a_model", {}, r"not_a_model must return a torch\.nn\.Module, got int"),
        ("torch.zeros", {}, "is not a Python function or class"),
        ("vit_b_16", {"image_size": 40}, "vit_b_16 refuses its arguments"),
        ("resnet8", {"kwargs": {"num_classes": 3}}, "model.teacher_kwargs: the data decides num_classes"),
        ("resnet20", {"pretrained": True}, "'resnet20' has no ImageNet weights; do without them"),
        ("vgg11", {"pretrained": True}, "'vgg11' has no ImageNet weights"),
    ],
)
def test_a_mistake_is_told_in_one_line(name: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        create_model(name, 10, key="model.teacher", **options)
    assert str(caught.value).startswith("model.teacher")
    assert "\n" not in str(caught.value)


def test_an_error_inside_the_users_function_is_left_alone() -> None:
    with pytest.raises(TypeError, match="inside the user's function"):
        create_model(f"{__name__}.broken", 10)


def test_imagenet_weights_fill_all_but_stem_and_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    imagenet = torchvision.models.resnet18(num_classes=1000)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save(imagenet.state_dict(), folder / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name)

    for size, fresh in ((32, {"conv1.weight", "fc.weight", "fc.bias"}), (224, {"fc.weight", "fc.bias"})):
        own = create_model("resnet18", 10, image_size=size, pretrained=True).state_dict()
        same = {k for k, v in imagenet.state_dict().items() if v.shape == own[k].shape and torch.equal(v, own[k])}
        assert own.keys() - same == fresh
    kept = create_model("resnet18", 1000, image_size=224, pretrained=True).get_parameter("fc.weight")
    assert torch.equal(kept, imagenet.fc.weight)


def test_imagenet_weights_of_another_shape_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    file = folder / Path(torchvision.models.MobileNet_V2_Weights.DEFAULT.url).name
    torch.save(torchvision.models.mobilenet_v2().state_dict(), file)
    with pytest.raises(UserError, match=r"weights of 'mobilenet_v2' do not fit the model as asked for: features\."):
        create_model("mobilenet_v2", 10, pretrained=True, kwargs={"width_mult": 0.5})


def test_without_network_the_message_says_where_the_file_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError) as caught:
        create_model("resnet18", 10, pretrained=True, key="model.teacher")
    message = str(caught.value)
    assert message.startswith("model.teacher: cannot get the ImageNet weights of 'resnet18' from https://")
    assert str(tmp_path / "checkpoints") in message
