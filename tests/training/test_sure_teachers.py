"""A teacher that is sure of its training images wants a temperature, and a line says so."""

import math

import pytest

from kd_lightning import KD
from kd_lightning.losses.distillation import Distillation
from kd_lightning.training.sure_teachers import ONE_HOT, wants_temperature

SURE = 0.5 * ONE_HOT * math.log(10)  # nats, of ten classes


@pytest.mark.parametrize(
    ("temperature", "entropy", "wanted"), [(2, SURE, True), (4, SURE, False), (2, 3 * SURE, False)]
)
def test_a_sure_teacher_wants_a_temperature(temperature: float, entropy: float, wanted: bool) -> None:
    assert wants_temperature(Distillation(KD(temperature=temperature)), entropy, 10) is wanted
