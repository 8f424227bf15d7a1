"""Random values of every key of every group: a run on tiny data or one line, never a traceback.

`KD_FUZZ=500 python -m pytest tests/safety/test_fuzz.py` tries so many; `KD_FUZZ_KEYS=trainer.limit` only keys that have
this in them. The three seeds of `KD_FUZZ_SEED=1` and so on try other values.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from scipy.io import wavfile

from kd_lightning import runs
from kd_lightning.train import main
from tests.conftest import TINY, compose, fresh_process

EXAMPLES, SEED = int(os.environ.get("KD_FUZZ", "12")), int(os.environ.get("KD_FUZZ_SEED", "0"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
SMALL = (*TINY, "trainer.max_steps=2", "model.teacher_cache=off")
DATA = {
    "digits": ("data.train_size=128",),
    "image_folder": ("loss=ce", "data.root=photos", "data.image_size=8", "data.batch_size=8"),
    "text_files": ("loss=ce", "data.root=texts", "model.student=text_bag", "data.batch_size=8"),
    "audio_folder": ("loss=ce", "data.root=sounds", "model.student=audio_cnn", "data.batch_size=8"),
    "cifar10": (),
    "cifar100": (),
    "sst2": (),
    "speech_digits": (),
}
"""Option of the group `data` → words with which it is tiny; those without any are not there, which is one line."""
NO_KEYS = ("_target_", "_partial_", "resume", "trust")
"""Names of code, which tests of their own cover."""

VALUES = st.one_of(
    st.sampled_from(["0", "-1", "1", "2", "3", "0.5", "0.0", "1e-9", "-0.1", "1.5", "nan", "inf", "-inf", "null"]),
    st.sampled_from(
        ["true", "false", "''", "abc", "[]", "{}", "[1,2]", "[0.1]", "[abc]", "{a: 1}", "1e400", "0x10", "é"]
    ),
    st.integers(-5, 5).map(str),
    st.floats(-4, 4, allow_nan=False).map(lambda x: f"{x:.3g}"),
)


def _keys() -> list[tuple[str, ...]]:
    """Return words that choose an option of a group, and a key that it has."""
    found: list[tuple[str, ...]] = []
    conf = Path(__file__).parents[2] / "conf"
    for group in ("loss", "scheduler", "optimizer", "data", "logger", "callbacks", "teacher_stage"):
        for option in sorted(path.stem for path in (conf / group).glob("*.yaml")):
            choice = (f"{group}={option}", *(DATA.get(option, ()) if group == "data" else ()))
            keys = runs.flatten(OmegaConf.load(conf / group / f"{option}.yaml"))
            found += [(*choice, f"{group}.{key}") for key in keys if key and "defaults" not in key]
    config = compose()
    for group in ("trainer", "model"):
        found += [(f"{group}.{key}",) for key in runs.flatten(config[group])]
    found += [
        (key,) for key in ("seed", "select", "compile", "data", "loss", "optimizer", "trainer", "model", "callbacks")
    ]
    wanted = os.environ.get("KD_FUZZ_KEYS", "")
    return [words for words in found if not words[-1].endswith(NO_KEYS) and wanted in words[-1]]


KEYS = _keys()


@pytest.fixture(scope="module")
def place(teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, photos and sentences."""
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(teacher_run, folder / "teacher")
    for n in range(64):
        path = folder / "photos" / ("train" if n < 40 else "val") / f"c{n % 2}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 4 * n, np.uint8)).save(path)
    for n in range(40):
        path = folder / "sounds" / f"c{n % 2}" / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, 16_000, np.random.default_rng(n).integers(-9999, 9999, 4_000, np.int16))
    (folder / "texts").mkdir()
    lines = [json.dumps({"text": f"sentence {n} is {'good' if n % 2 else 'bad'}", "label": n % 2}) for n in range(80)]
    (folder / "texts/train.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(autouse=True)
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> Iterator[None]:
    """Folders that a random value names are made there."""
    monkeypatch.chdir(place)
    yield


def status_of(words: list[str]) -> int:
    """Return the exit status of `kd-train` with `words`, in a new run directory."""
    out = tempfile.mkdtemp(dir=".")
    argv, sys.argv = sys.argv, ["kd-train", *words, f"hydra.run.dir={out}"]
    try:
        with fresh_process():
            main()
        return 0
    except SystemExit as e:
        return int(e.code or 0)
    finally:
        sys.argv = argv


ENDS = (0, 2, 3)
"""Statuses of a run that ends well, is refused in one line, or diverges."""


def words_of(key: tuple[str, ...], value: str) -> list[str]:
    """Return the overrides of a tiny run with that value."""
    chosen = {word.partition("=")[0] for word in key[:-1]}
    teacher = () if key[-1].startswith("teacher_stage.") else ("model.teacher_weights=teacher",)
    words = [*SMALL, *("data.train_size=128",) * ("data" not in chosen), *teacher, *key[:-1], f"{key[-1]}={value}"]
    if "data" in chosen:
        words = [word for word in words if word not in ("data=digits", "data.train_size=320")]
    return words


@given(key=st.sampled_from(KEYS), value=VALUES)
@seed(SEED)
@FUZZ
def test_any_value_of_any_key(key: tuple[str, ...], value: str) -> None:
    words = words_of(key, value)
    assert status_of(words) in ENDS, words


@pytest.mark.slow
def test_the_fuzz_finds_limits_that_nobody_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of nothing ended in a traceback, some after the training; without our check they do again."""
    monkeypatch.setattr("kd_lightning.training.build.check_limits", lambda *_: None)
    keys = [key for key in KEYS if key[-1].startswith("trainer.limit_")]

    @given(key=st.sampled_from(keys), value=VALUES)
    @seed(SEED)
    @settings(FUZZ, max_examples=200)
    def fuzz(key: tuple[str, ...], value: str) -> None:
        words = words_of(key, value)
        assert status_of(words) in ENDS, words

    with pytest.raises(Exception) as e:
        fuzz()
    found = getattr(e.value, "exceptions", [e.value])  # Hypothesis tells all that it found as a group
    assert any(isinstance(error, KeyError) for error in found), "a score that the run has not"
