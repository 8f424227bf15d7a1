"""Every preset on sentences and on spectrograms: a step that trains the student, or one line that says why not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kd_lightning.losses import Networks
from kd_lightning.models import create_model
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.models.probe import Probe
from kd_lightning.types import Batch, StudentCard
from kd_lightning.utils.checks import UserError
from tests.losses.learner import PRESETS, SMALL, preset_loss

MASK = torch.arange(8) < torch.tensor([[8], [3], [5], [1]])
TOKENS = {"ids": torch.arange(32).view(4, 8).masked_fill(~MASK, 0), "mask": MASK}
WORDS, BANDS = {"vocabulary": 32, "max_length": 8, "padding": 0}, {"bands": 16, "frames": 16}
KINDS: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "text": (TOKENS, {"num_classes": 3} | WORDS, "text_bilstm", "text_bag"),
    "speech": (torch.rand(4, 1, 16, 16), {"num_classes": 3} | BANDS, "audio_crnn", "audio_dscnn"),
}
REFUSED = {
    "text": {
        "fitnets": "loss.student_layers: there is no stage 2 in TextBag; it has 1 stage: give last",
        "fsp": "loss=fsp relates layers to each other, .*; here are map1 and map2",
        "ofd": "map2 of TextBiLSTM does not end in BatchNorm, ReLU",
        "simkd": "loss=simkd makes a student out of feature maps without padding, .* take loss=srrl",
    },
    "speech": {"fsp": "blocks.1 has 64 channels and its teacher's layer 24, but FSP wants as many"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", PRESETS)
def test_trains_the_student_or_says_what_it_needs(preset: str, kind: str) -> None:
    x, facts, teacher, student = KINDS[kind]
    batch = Batch(x, torch.tensor([0, 1, 2, 1]), torch.arange(4))
    torch.manual_seed(0)
    model, wise = create_model(student, **facts), create_model(teacher, **facts).eval().requires_grad_(False)
    loss = preset_loss(preset, *SMALL.get(preset, ()))
    card = StudentCard(student, {}, list("abc"), facts, {})
    probe = Probe(wise, x) if loss.needs_teacher else None
    networks = Networks(Probe(model, x), probe, 4, lambda _: create_model(student, **facts), card)
    if told := REFUSED[kind].get(preset):
        with pytest.raises(UserError, match=told) as caught:
            loss.prepare(networks)
        assert "\n" not in str(caught.value)
        return
    loss.prepare(networks)
    loss.method.set_epoch(1000)
    model = loss.wrap_student(model)
    terms: dict[str, Tensor] = loss(
        FeatureExtractor(model, loss.student_layers)(x), FeatureExtractor(wise, loss.teacher_layers)(x), batch
    )
    terms["loss"].backward()
    assert terms["loss"].isfinite() and any(p.grad is not None and p.grad.any() for p in model.parameters())
