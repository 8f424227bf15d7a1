"""Properties that every net for small images has."""

import os
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.models import count_parameters, create_model, head, model_names, stages

SLOW_TO_BUILD = {"resnet101", "resnet152", "wide_resnet50_2"}
QUICK = [name for name in model_names() if name not in SLOW_TO_BUILD]

# Parameters at 100 classes in the literature, in millions: CRD's and OFA's tables, and the papers of the nets.
MILLIONS = {
    "resnet20": 0.28,
    "resnet32": 0.47,
    "resnet56": 0.86,
    "resnet110": 1.73,
    "resnet8x4": 1.23,
    "resnet32x4": 7.43,
    "wrn_16_2": 0.70,
    "wrn_40_1": 0.57,
    "wrn_40_2": 2.26,
    "vgg8": 3.96,
    "vgg13": 9.46,
    "mobilenetv2": 0.81,
    "shufflenetv1": 0.95,
    "shufflenetv2": 1.36,
}


def tapped(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Logits, the output of each stage, and the input of the head."""
    taken: dict[str, Tensor] = {}
    for name in stages(model):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: taken.update({name: out}))
    model.get_submodule(head(model)).register_forward_pre_hook(lambda _m, args: taken.update({"pooled": args[0]}))
    logits = model(x)
    return logits, [taken[name] for name in stages(model)], taken["pooled"]


@pytest.mark.parametrize("name", QUICK)
def test_any_small_image_gives_logits_and_maps_whose_last_is_pooled(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, 7)
    for size in (32, 8):
        logits, maps, pooled = tapped(model, torch.randn(2, 3, size, size))
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
        assert all(m.dim() == 4 and m.shape[0] == 2 for m in maps)
        torch.testing.assert_close(maps[-1].mean((2, 3)), pooled)
        assert isinstance(model.get_submodule(head(model)), nn.Linear)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", model_names())
def test_shapes_at_64_pixels(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, 5, image_size=64)
        logits, maps, pooled = tapped(model, torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 5)
    sizes = [m.shape[-1] for m in maps]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > 1
    assert pooled.shape == maps[-1].shape[:2]


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv2"])
def test_memory_format_does_not_change_the_answer(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, 10).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(x)
        got = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_parameters_match_the_literature(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert round(count_parameters(create_model(name, 100)) / 1e6, 2) == millions


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_initial_activations_neither_vanish_nor_explode(name: str) -> None:
    torch.manual_seed(0)
    _, maps, _ = tapped(create_model(name, 10), torch.randn(16, 3, 32, 32))
    assert all(0.1 < m.std() < 10 for m in maps)


def test_option_a_shortcut_subsamples_and_pads_with_zeros_on_both_sides() -> None:
    block = create_model("resnet20", 10).get_submodule("layer2.0")
    shortcut = block.get_submodule("shortcut")
    assert count_parameters(shortcut) == 0
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = shortcut(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None and x.grad.is_contiguous(memory_format=torch.channels_last), (
        "else ReLU takes 20 times as long"
    )
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any() and not y[:, 24:].any()


def checkpoint_keys(depth: int) -> set[str]:
    """Names in the widespread CIFAR-10 checkpoints of He's ResNets, without `module.`, their `linear` called `fc`."""
    norm = ("weight", "bias", "running_mean", "running_var")
    keys = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{k}" for k in norm)}
    for block in (f"layer{i}.{j}" for i in (1, 2, 3) for j in range((depth - 2) // 6)):
        for i in (1, 2):
            keys |= {f"{block}.conv{i}.weight", *(f"{block}.bn{i}.{k}" for k in norm)}
    return keys


@pytest.mark.parametrize("depth", [20, 56])
def test_option_a_nets_fit_public_checkpoints(depth: int) -> None:
    own = create_model(f"resnet{depth}", 10).state_dict()
    assert {key for key in own if not key.endswith("num_batches_tracked")} == checkpoint_keys(depth)


@pytest.mark.skipif("KD_SHARED" not in os.environ, reason="KD_SHARED names no folder with teachers/")
@pytest.mark.parametrize("depth", [20, 56])
def test_a_public_checkpoint_loads(depth: int) -> None:
    (path,) = (Path(os.environ["KD_SHARED"]) / "teachers").glob(f"resnet{depth}-*.th")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    renamed = {re.sub(r"^linear\.", "fc.", key.removeprefix("module.")): value for key, value in state.items()}
    create_model(f"resnet{depth}", 10).load_state_dict(renamed)
