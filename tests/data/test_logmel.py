"""The front end of recordings: librosa's numbers, by a Fourier transform and by a convolution."""

import json
from pathlib import Path

import pytest
import torch

from kd_lightning.data.audio.logmel import CENTER, FLOOR, SPREAD, LogMel, MatrixLogMel, mel_filters
from kd_lightning.utils.checks import UserError
from tests.data.make_logmel import SAMPLES, signal

GOLDEN = json.loads(Path(__file__).with_name("logmel.json").read_text())["cases"]


def front_end(case: dict) -> LogMel:
    rate = case["sample_rate"]
    return LogMel(rate, SAMPLES / rate, case["size"] / rate, case["step"] / rate, case["bands"])


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case["sample_rate"]))
def test_numbers_of_librosa(case: dict) -> None:
    logmel, wave = front_end(case), torch.from_numpy(signal(case["sample_rate"]))[None]
    power = torch.tensor(case["power"], dtype=torch.float64)
    torch.testing.assert_close((logmel.filters @ logmel.power(wave))[0].double(), power, rtol=1e-4, atol=1e-5)
    expected = ((power + FLOOR).log() - CENTER) / SPREAD
    for front in (logmel, MatrixLogMel(logmel)):
        found = front(wave)
        assert found.shape == (1, 1, case["bands"], logmel.frames)
        torch.testing.assert_close(found[0, 0].double(), expected, rtol=1e-3, atol=2e-3)


def test_filters_are_triangles_that_meet() -> None:
    filters = mel_filters(16_000, 2048, 40)
    assert filters.min() == 0 and filters.max() <= 1
    inside = slice(int(filters[0].argmax()), int(filters[-1].argmax()))
    torch.testing.assert_close(filters.sum(0)[inside], torch.ones(inside.stop - inside.start, dtype=torch.float64))


def test_silence_noise_and_any_length() -> None:
    logmel = LogMel(8000, 1.0)
    silent = logmel(torch.zeros(1, 8000))
    assert silent.unique().numel() == 1 and silent.isfinite().all()
    noise = 0.1 * torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
    assert logmel(noise).std() < 1 and (logmel(noise) > silent).all()
    assert logmel(noise[:, :1601]).shape == (3, 1, 32, 7)
    torch.testing.assert_close(MatrixLogMel(logmel)(noise), logmel(noise), atol=1e-4, rtol=0)
    assert not list(logmel.state_dict()) and LogMel.parse(logmel.card()).card() == logmel.card()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sample_rate": 0}, r"data\.sample_rate must be a whole number >= 1000"),
        ({"seconds": -1}, r"data\.seconds must be a number > 0"),
        ({"hop": 0.1}, r"data\.hop must be .* at most data\.window, .*; got 0\.1, 0\.032 and 1\.0 seconds"),
        ({"bands": 200}, r"data\.bands=200 are too many for data\.window=0\.032 at 16000 Hz"),
        ({"bands": "many"}, r"data\.bands must be a whole number"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        LogMel(**values)
    with pytest.raises(UserError, match="does not take recordings but images"):
        LogMel.parse({"kind": "images"})
