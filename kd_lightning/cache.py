"""Fill the teacher cache ahead of a sweep: `python -m kd_lightning.cache model.teacher=resnet50 [data=… …]`."""

import sys

import hydra
from omegaconf import DictConfig

from kd_lightning.cli import clear_errors, fail
from kd_lightning.config import CONF_DIR
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import trusting


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def _main(cfg: DictConfig) -> None:
    try:
        from kd_lightning.training.fill import fill  # torch takes seconds to import

        with trusting():  # the user typed it all
            fill(cfg)
    except UserError as e:
        raise SystemExit(fail(e)) from e


if __name__ == "__main__":
    with clear_errors():
        sys.argv += ["hydra.run.dir=.", "hydra/job_logging=none"]  # this is not a run
        _main()
