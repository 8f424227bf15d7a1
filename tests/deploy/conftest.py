"""Students on digits, as the deployment commands meet them."""

from pathlib import Path

import pytest

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
