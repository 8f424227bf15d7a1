"""Learning-rate factors: ends, middle, warm-up, and what they refuse."""

import math
from functools import partial
from typing import Any

import pytest

from kd_lightning.schedules import constant, cosine, multistep
from kd_lightning.utils.checks import UserError


def test_cosine() -> None:
    assert [cosine(e, 10) for e in (0, 5, 10, 12)] == pytest.approx([1, 0.5, 0, 0])
    assert cosine(10, 10, final=0.1) == pytest.approx(0.1)
    assert cosine(2.5, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_warm_up_is_linear_and_comes_first() -> None:
    for schedule in (cosine, multistep, constant):
        assert [schedule(e, 10, warmup_epochs=2) for e in (0.5, 1, 2)] == pytest.approx([0.25, 0.5, 1])
        assert 0 < schedule(0, 10, warmup_epochs=2) <= 1e-3  # the first step learns something


def test_multistep() -> None:
    factors = [multistep(e, 240, milestones=[150, 180, 210]) for e in (0, 149.9, 150, 180, 239)]
    assert factors == pytest.approx([1, 1, 0.1, 0.01, 0.001])


def test_more_epochs_stretch_the_schedule() -> None:
    assert cosine(10, 20) == pytest.approx(0.5)  # a run of 10 epochs that goes on to 20


@pytest.mark.parametrize(
    "schedule, message",
    [
        (partial(cosine, warmup_epochs=-1), "scheduler.warmup_epochs must be a number >= 0"),
        (partial(constant, warmup_epochs=11), "scheduler.warmup_epochs must be <= the 10 epochs"),
        (partial(cosine, final=1.5), "scheduler.final must be .* <= 1, got 1.5"),
        (partial(multistep, gamma=0), "scheduler.gamma must be a number > 0"),
        (partial(multistep, milestones=[-1]), "scheduler.milestones must be a number >= 0"),
        (partial(constant, warmup_epochs="two"), "scheduler.warmup_epochs must be .* got 'two'"),
    ],
)
def test_mistakes(schedule: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedule(0.0, 10)
