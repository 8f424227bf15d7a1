"""Loggers that a file of unknown origin names write into the run directory, or not at all."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kd_lightning.training.extras import build_loggers, check_extras
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import trusting
from tests.conftest import compose


def test_a_file_cannot_say_where_a_logger_writes(tmp_path: Path) -> None:
    node = OmegaConf.create({"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "/elsewhere"}})
    with trusting(False):
        [logger] = build_loggers(node, tmp_path)
    assert logger.save_dir == str(tmp_path)


def test_a_file_cannot_have_scores_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: object())
    with trusting(False), pytest.raises(UserError, match="does not offer"):
        check_extras(compose("logger=mlflow"), "cpu")


@pytest.mark.parametrize("key", ["name", "version"])
def test_a_file_cannot_lead_a_logger_out_of_the_run_directory(tmp_path: Path, key: str) -> None:
    """Lightning removes the `metrics.csv` that lies there."""
    node = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": None, key: "../mine"}
    with (
        trusting(False),
        pytest.raises(UserError, match=rf"logger\.csv\.{key}: '\.\./mine', named by a file, leads out"),
    ):
        build_loggers(OmegaConf.create({"csv": node}), tmp_path)


def test_a_word_is_no_logger(tmp_path: Path) -> None:
    """Beside `--config-path` there are no groups to choose from."""
    with pytest.raises(UserError, match=r"logger must be classes by their names, .*got 'none'"):
        build_loggers("none", tmp_path)
