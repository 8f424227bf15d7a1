"""The start of a command."""

import gc
import sys

import pytest

from kd_lightning.utils.startup import quick_imports


def test_garbage_is_looked_for_again_after_the_first_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    with quick_imports():
        assert gc.isenabled(), "torch was imported before: what was made since may be garbage"
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(ImportError), quick_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled() and gc.get_freeze_count() == 0, "what is frozen is reported as leaked at the end"
