"""A teacher that is sure of its training images wants a temperature, and a line says so."""

import math

import pytest

from kd_lightning import KD
from kd_lightning.losses.distillation import Distillation
from kd_lightning.training.sure_teachers import ONE_HOT, wants_temperature
from kd_lightning.training.teacher_check import least_accuracy

SURE = 0.5 * ONE_HOT * math.log(10)  # nats, of ten classes


@pytest.mark.parametrize(
    ("temperature", "entropy", "wanted"), [(2, SURE, True), (4, SURE, False), (2, 3 * SURE, False)]
)
def test_a_sure_teacher_wants_a_temperature(temperature: float, entropy: float, wanted: bool) -> None:
    assert wants_temperature(Distillation(KD(temperature=temperature)), entropy, 10) is wanted


@pytest.mark.parametrize(
    ("classes", "count", "least"),
    [
        (
            10,
            5000,
            0.145,
        ),  # one that had not learned was at 0.114, three deviations above chance
        (10, 100, 0.19),  # on so few samples luck reaches further
        (2, 4, 0.75),  # never more than half of the way
        (1000, 50000, 0.051),
    ],
)
def test_a_teacher_has_come_some_way_from_chance(classes: int, count: int, least: float) -> None:
    assert least_accuracy(classes, count) == pytest.approx(least, abs=0.001)
