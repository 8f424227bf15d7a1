"""Processes of their own for what only a process can show: signals, kills, exit statuses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.processes import Process
from tests.conftest import TINY


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Process]:
    """Starts `kd-train` with TINY and these words in an empty folder."""

    def run(*words: str, tiny: bool = True) -> Process:
        return Process(tmp_path, [*(TINY if tiny else ()), *words])

    return run
