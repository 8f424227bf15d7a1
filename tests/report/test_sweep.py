"""What is said before a sweep starts."""

from collections.abc import Callable
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from kd_lightning.report.sweep import _power


def test_power_is_told_before_a_sweep(fake_run: Callable[..., Path]) -> None:
    def told(*words: str) -> str:
        overrides = OverridesParser.create().parse_overrides(list(words))
        return _power(overrides, jobs, finished)

    jobs = 6
    finished: list[Path] = []
    assert "with 3 seeds and 1 setting compared" in told("loss=ce,kd", "seed=0,1,2")
    assert "with 3 seeds and 2 settings compared" in told("loss.temperature=1,4", "seed=0,1,2"), "the baseline is extra"
    assert "an assumption" in told("loss=ce,kd", "seed=range(3)")
    jobs = 18
    assert "1 setting compared" in told("loss=ce,kd", "optimizer.lr=0.05,0.1,0.2", "seed=0,1,2"), "each has a baseline"
    finished = [fake_run(a, "loss=ce", f"seed={seed}") for seed, a in enumerate((0.80, 0.82, 0.84))]
    assert "2.00 points, as among the finished runs" in told("loss=ce,kd", "seed=0,1,2")
