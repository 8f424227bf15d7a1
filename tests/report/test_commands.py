"""A command that repeats a setting says what is not the default, and nothing is lost."""

import pytest

from kd_lightning.report import commands

PHOTOS = ["data=image_folder", "data.root=photos"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (PHOTOS, PHOTOS),
        ([*PHOTOS, "optimizer=sgd"], ["data=image_folder", "optimizer=sgd", "data.root=photos"]),  # not their default
        (["data=digits", "optimizer=adamw"], ["data=digits", "optimizer=adamw"]),
        (["data=digits", "optimizer=sgd", "seed=3"], ["seed=3", "data=digits"]),
    ],
)
def test_words_make_the_configuration_again(typed: list[str], words: list[str]) -> None:
    wanted = commands._values(commands._composed(tuple(typed)))
    assert commands._overrides(wanted) == words
    assert commands._values(commands._composed(tuple(words))) == wanted
