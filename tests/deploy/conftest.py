"""Students on digits, as the deployment commands meet them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kd_lightning.deploy.files.formats import FORMATS
from kd_lightning.deploy.files.write import export
from kd_lightning.deploy.source import Source, open_source
from kd_lightning.deploy.steps import quantize
from kd_lightning.train import train
from tests.conftest import compose


@pytest.fixture(scope="session")
def source(distilled: Path) -> Source:
    return open_source(distilled, [])


@pytest.fixture(scope="session")
def int8_run(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`distilled`, quantized after training."""
    return quantize(source, tmp_path_factory.mktemp("int8") / "run", images=128)


@pytest.fixture(scope="session")
def capricious_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("capricious") / "run"
    train(compose("loss=ce", "model.student=tests.deploy.nets.Capricious"), out)
    return out


@pytest.fixture(scope="session")
def written(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`written("onnx", fp16=True)`: such a file of `source`, for any number of images; each kind is written once."""
    folder, known = tmp_path_factory.mktemp("files"), {}

    def write(form: str, **how: Any) -> Path:
        key = json.dumps([form, how])
        if key not in known:
            path = folder / f"{len(known)}{FORMATS[form].suffix}"
            known[key], _ = export(source, form, path, dynamic_batch=True, **how)
        return known[key]

    return write
