"""The short form of `python -m tests.chaos.kills`."""

import sys

import pytest

from tests.chaos import kills


def test_a_run_that_was_killed_ends_like_one_that_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kills", "--kills", "1", "--seed", "3"])
    assert kills.main() == 0


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["two", "four"])
def test_several_processes_that_were_killed_end_like_those_that_were_not(
    monkeypatch: pytest.MonkeyPatch, jobs: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["kills", "--jobs", jobs, "--kills", "4"])
    assert kills.main() == 0
