"""A frozen teacher: it answers, and nothing about it ever changes."""

import pytest
import torch
from torch import nn

from kd_lightning.data import Normalize
from kd_lightning.data.images.adapter import ImageAdapter
from kd_lightning.models import create_model
from kd_lightning.teachers.adapter import TeacherAdapter
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.types import Batch, batch_of


def batch(n: int = 4) -> Batch:
    x = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(x, torch.zeros(n, dtype=torch.int64), torch.arange(n))


def test_another_normalization_is_normalizing_anew() -> None:
    pixels = torch.randint(256, (2, 8, 8, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    old = Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    new = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(ImageAdapter(old, new)(batch_of(old(pixels), 2)), new(pixels), rtol=1e-5, atol=1e-5)


def test_answers_without_gradients_and_stays_as_it_is() -> None:
    model = create_model("resnet8", 10)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    teacher = LiveTeacher(model, ["layer2"])
    outputs = teacher(batch())
    assert outputs.logits.shape == (4, 10) and outputs.features["layer2"].shape == (4, 32, 4, 4)
    assert not outputs.logits.requires_grad and not outputs.logits.is_inference()  # a loss may save them for backward
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_follows_the_student_with_its_renormalization() -> None:
    model = create_model("resnet8", 10)
    images = ImageAdapter(Normalize((0.5,) * 3, (0.2,) * 3), Normalize((0.4,) * 3, (0.3,) * 3))
    teacher = LiveTeacher(model, adapter=TeacherAdapter(images))
    teacher.apply_(lambda t: t.double() if t.is_floating_point() else t)
    b = batch()
    logits = teacher(b._replace(x=b.x.double())).logits
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, model((b.x.double() * 0.2 + 0.5 - 0.4) / 0.3))


def test_layer_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no layer 'layer9' in CifarResNet"):
        LiveTeacher(create_model("resnet8", 10), ["layer9"])


def test_answers_in_the_dtype_of_its_weights() -> None:
    """As of `trainer.precision=64-true`; not every caller has converted what was read."""
    teacher = LiveTeacher(nn.Linear(4, 3).double())
    assert teacher(batch_of(torch.ones(2, 4), 2)).logits.dtype == torch.float64
