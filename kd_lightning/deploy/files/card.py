"""The card of an exported file: its student's, and in `extra` what the file adds.

It is JSON in the file's metadata, under the key `kd_lightning`; `extra` then has

- input: `float32 NCHW` for normalized images, `uint8 NHWC` for pixels as they are, `float32 waveform` for recordings
  `[N, samples]` with values in [−1, 1], `float32 [N, 40]` for another tensor, or such a description of each entry of a
  dictionary; of text `int64 [N, L]`, with any L up to `max_length`
- precision: `fp32`, `fp16` or `int8`; inputs and logits are not affected
- batch: null for any number of samples, or 1
- versions: of kd_lightning and torch
- file_sha256: checksum of the file, see `utils.seal`; zeros in a `.pt2`, which has checksums of its own
- divided_by: temperature by which the file divides its logits; absent if it does not
- temperature: temperature by which its logits are still to be divided; absent if there is none

Of a student with several heads both are dictionaries by task, and the file has one output for each, `logits_<task>`.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from kd_lightning.types import StudentCard
from kd_lightning.utils import hardware
from kd_lightning.utils.seal import OPEN, SEAL

FLOAT, PIXELS, WAVES = "float32 NCHW", "uint8 NHWC", "float32 waveform"
INPUT, OUTPUT = "images", "logits"
"""Names of the tensors of a file; a dictionary has names of its own, and another tensor is called `x`."""


def is_images(card: StudentCard) -> bool:
    """Return whether the student takes images."""
    return card.preprocessing.get("kind") == "images"


def is_text(card: StudentCard) -> bool:
    """Return whether the student takes token ids and mask."""
    return card.preprocessing.get("kind") == "text"


def is_audio(card: StudentCard) -> bool:
    """Return whether the student takes spectrograms of recordings."""
    return card.preprocessing.get("kind") == "audio"


def takes_raw(card: StudentCard) -> bool:
    """Return whether a file takes samples as they are and does the preprocessing itself."""
    return card.extra.get("input") in (PIXELS, WAVES)


def dynamic_shapes(card: StudentCard, example: Any) -> Any:
    """Return which dimensions of the inputs of a file may differ from `example`, for `torch.export`; None for none."""
    dims: dict[int, Any] = {} if card.extra["batch"] else {0: torch.export.Dim("batch")}
    if is_text(card) and int(card.preprocessing["max_length"]) > 1:
        dims[1] = torch.export.Dim("length", min=1, max=int(card.preprocessing["max_length"]))
    return tree_map(lambda _: dims, example) if dims else None


def input_name(card: StudentCard) -> str:
    """Return the name of a file's only input."""
    if is_audio(card):
        return "waveform" if takes_raw(card) else "spectrogram"
    return INPUT if is_images(card) else "x"


def output_names(card: StudentCard) -> list[str]:
    """Return the names of a file's outputs in the order of its tasks."""
    return [f"{OUTPUT}_{task}" if task else OUTPUT for task in card.tasks]


def file_card(
    student: StudentCard,
    example: Any,
    *,
    preprocessing: bool = False,
    precision: str = "fp32",
    batch: int | None = None,
    raw: bool = True,
) -> StudentCard:
    """Return the card of a file.

    Args:
        student: Card of the student.
        example: Inputs of the student.
        preprocessing: The file takes samples as they are, pixels or waveforms.
        precision: See the module.
        batch: See the module.
        raw: Logits are left as the student gives them.
    """
    versions = hardware.describe("cpu")["versions"]
    extra = dict(student.extra) | {
        "input": _described(student, example, preprocessing),
        "precision": precision,
        "batch": batch,
        "versions": {name: versions[name] for name in ("kd_lightning", "torch")},
        SEAL: OPEN,
    }
    if not raw and "temperature" in extra:
        extra["divided_by"] = extra.pop("temperature")
    return replace(student, extra=extra)


def _described(card: StudentCard, example: Any, preprocessing: bool) -> Any:
    if is_images(card):
        return PIXELS if preprocessing else FLOAT
    if is_audio(card) and preprocessing:
        return WAVES
    if isinstance(example, Mapping):
        return {name: _tensor(value, is_text(card)) for name, value in example.items()}
    return _tensor(example)


def _tensor(x: Tensor, any_length: bool = False) -> str:
    shape = ["N", *(["L"] if any_length else map(str, x.shape[1:]))]
    return f"{str(x.dtype).removeprefix('torch.')} [{', '.join(shape)}]"


def dump(card: StudentCard) -> str:
    """Return the text for a file's metadata."""
    return json.dumps(card.as_dict())


def parse(text: str) -> StudentCard:
    """Return the card in a file's metadata. Raises ValueError or TypeError if it is none."""
    return StudentCard.from_dict(json.loads(text))
