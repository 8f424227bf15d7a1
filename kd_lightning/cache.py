"""Fill the teacher cache ahead of a sweep: `python -m kd_lightning.cache model.teacher=resnet50 [data=… …]`."""

import sys

import hydra
from omegaconf import DictConfig

from kd_lightning.cli import clear_errors, fail
from kd_lightning.config import CONF_DIR
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.names import program
from kd_lightning.utils.trust import trusting


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def _main(cfg: DictConfig) -> None:
    try:
        from kd_lightning.training.fill import fill  # torch takes seconds to import

        with trusting():  # the user typed it all
            fill(cfg)
    except UserError as e:
        raise SystemExit(fail(e)) from e


HELP = """usage: {program} [KEY=VALUE …]

Fill the teacher cache ahead of a sweep: every teacher is asked for what its table lacks, and no student is trained.
A teacher that is not kept yet is trained first.

  {program} model.teacher=resnet50 data=cifar10
  {program} 'model.teacher=[resnet50,wrn_40_2]' model.teacher_cache=my_cache

Keys and groups are those of {train}; give the same data, seed, augmentation and teacher as the sweep will have.
  model.teacher_cache        folder of the tables; auto: outputs/teacher_cache
  model.teacher_cache_dtype  fp16 or fp32; auto: fp16 where it loses nothing
  data.eval_batch_size       samples that the teacher is asked at once
  --cfg job                  print the composed configuration
"""


def main() -> None:
    """Run the command. Exit status 2 if nothing can be filled."""
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        print(HELP.format(program=program("cache"), train=program("train")), end="")
        return
    with clear_errors():
        sys.argv += ["hydra.run.dir=.", "hydra/job_logging=none"]  # this is not a run
        _main()


if __name__ == "__main__":
    main()
