"""Make logmel.json, the numbers of librosa that the front end is held to.

`pip install librosa==0.11.0 && python tests/data/make_logmel.py`
"""

import json
from pathlib import Path

import numpy as np

CASES = [
    {"sample_rate": 8000, "size": 256, "step": 160, "bands": 16},
    {"sample_rate": 16000, "size": 400, "step": 160, "bands": 24},
]
SAMPLES = 1600


def signal(sample_rate: int) -> np.ndarray:
    """A rising tone and a steady one, float32 `[SAMPLES]`."""
    t = np.arange(SAMPLES) / sample_rate
    return (0.5 * np.sin(2 * np.pi * (300 + 6000 * t) * t) + 0.1 * np.cos(2 * np.pi * 1234.5 * t)).astype(np.float32)


def main() -> None:
    import librosa

    cases = []
    for case in CASES:
        power = librosa.feature.melspectrogram(
            y=signal(case["sample_rate"]).astype(np.float64),
            sr=case["sample_rate"],
            n_fft=case["size"],
            hop_length=case["step"],
            window="hann",
            center=True,
            pad_mode="constant",
            power=2.0,
            n_mels=case["bands"],
            fmin=0.0,
            fmax=case["sample_rate"] / 2,
            htk=True,
            norm=None,
        )
        cases.append({**case, "power": [[float(f"{value:.6e}") for value in band] for band in power]})
    text = json.dumps({"librosa": librosa.__version__, "cases": cases}).replace("], [", "],\n[")
    Path(__file__).with_name("logmel.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
