"""What a deployed file says of itself, under the key `kd_lightning`, as JSON.

name, kwargs, num_classes, image_size, classes, normalize {mean, std}: as `student.safetensors` says
input: "float32 NCHW", normalized, or "uint8 NHWC", pixels as they are
precision: "fp32", "fp16" or "int8"; input and logits are not affected
batch: null, any number of images, or 1
versions {kd_lightning, torch}
"""

import json
from typing import Any

from kd_lightning.utils import hardware

KEY = "kd_lightning"
FLOAT, PIXELS = "float32 NCHW", "uint8 NHWC"
INPUT, OUTPUT = "images", "logits"


def describe(student: dict[str, Any], *, preprocessing: bool, precision: str, batch: int | None) -> dict[str, Any]:
    """Of a file with the student of which `student` tells."""
    versions = hardware.describe("cpu")["versions"]
    return student | {
        "input": PIXELS if preprocessing else FLOAT,
        "precision": precision,
        "batch": batch,
        "versions": {name: versions[name] for name in ("kd_lightning", "torch")},
    }


def dump(about: dict[str, Any]) -> str:
    return json.dumps(about)
