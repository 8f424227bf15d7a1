"""Changes of a configuration that was composed before: one function for every command."""

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from kd_lightning.config import CONF_DIR, apply_overrides
from kd_lightning.utils.checks import UserError

CONFIG = OmegaConf.create(
    {"data": {"root": "a", "pad": {"size": 1}}, "model": {"student": "x", "weights": None, "kwargs": {}}, "seed": 0}
)


def changed(*overrides: str, **how: Any) -> DictConfig:
    given = {"allowed": ("data.root", "model.weights", "model.kwargs", "seed"), "refusal": "{} is fixed"} | how
    return apply_overrides(CONFIG, overrides, **given)


def test_values_are_read_as_the_training_command_reads_them() -> None:
    config = changed("data.root=/a b/c", "model.weights=[x,y]", "model.kwargs={width: 2}", "seed=1e1")
    assert config.data.root == "/a b/c" and config.model.weights == ["x", "y"]
    assert config.model.kwargs == {"width": 2} and config.seed == 10.0
    assert changed("+model.kwargs.width=2").model.kwargs == {"width": 2}
    assert changed("model.weights='a=1,(b)'").model.weights == "a=1,(b)"
    assert CONFIG.data.root == "a" and CONFIG.model.weights is None


def test_a_group_comes_before_its_keys_and_frees_them() -> None:
    config = changed("data.batch_size=3", "data=digits", groups=("data",))
    assert config.data.batch_size == 3 and config.data._target_.endswith("DigitsDataModule")


def test_an_option_that_builds_on_another_has_the_keys_of_both() -> None:
    config = changed("data=digits_tasks", groups=("data",)).data
    assert config._target_.endswith("DigitsTasks") and "parity" in config.tasks and "val_size" in config
    assert "defaults" not in config


@pytest.mark.parametrize("path", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_word_of_a_yaml_is_a_truth_value_to_yaml(path: Path) -> None:
    """`off` is false there, of which a key that holds a word makes `False`: a folder of that name was written."""
    assert not re.search(r":\s*(off|on|yes|no|y|n)\s*(#.*)?$", path.read_text(), re.MULTILINE | re.IGNORECASE)


def test_what_changes_nothing_is_accepted() -> None:
    assert changed("model.student=x", "data.pad.size=1") == CONFIG


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.student=y", "^model.student=y is fixed$"),
        ("data=digits", "^data=digits is fixed$"),
        ("experiment=quickstart", "^experiment=quickstart is fixed$"),
        ("data.rot=b", "unknown key 'data.rot'; did you mean 'data.root'"),
        ("data.pad.size.x=b", "unknown key"),
        ("nothing", "cannot read 'nothing'; write key=value"),
        ("data.root=a=b", "cannot read 'data.root=a=b'"),
        ("seed=1,2", "seed=1,2: give one value"),
        ("~seed", "~seed: give one value"),
    ],
)
def test_a_mistake_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        changed(override)
    assert "\n" not in str(told.value)


def test_an_unknown_option_names_its_group() -> None:
    with pytest.raises(UserError, match=r"loss must be one of .*did you mean 'kd'"):
        changed("loss=kdd", groups=("loss",))
