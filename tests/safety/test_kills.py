"""The short form of `python -m tests.chaos.kills`."""

import sys

import pytest

from tests.chaos import kills


@pytest.mark.slow
def test_runs_that_were_killed_end_like_one_that_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kills", "--kills", "4", "--seed", "3"])
    assert kills.main() == 0
