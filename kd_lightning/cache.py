"""Ask a teacher ahead of a sweep, into its cache or a file: `python -m kd_lightning.cache model.teacher=resnet50 …`."""

import argparse
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kd_lightning.cli import clear_errors, fail
from kd_lightning.config import CONF_DIR
from kd_lightning.config_path import check_config_path, trusting_typed
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.names import program
from kd_lightning.utils.startup import quick_imports


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def _main(cfg: DictConfig) -> None:
    try:
        with quick_imports():  # torch takes seconds to import
            from kd_lightning.training.fill import export, fill

        with trusting_typed(cfg, HydraConfig.get()):
            if _asked.export is None:
                fill(cfg)
            else:
                export(cfg, Path(_asked.export), _asked.top_k)
    except UserError as e:
        raise SystemExit(fail(e)) from e


_asked = argparse.Namespace(export=None, top_k=None)
"""Options typed beside the keys."""

HELP = """usage: {program} [--export FILE [--top-k K]] [KEY=VALUE …]

Fill the teacher cache ahead of a sweep: every teacher is asked for what its
table lacks, and no student is trained. A teacher that is not kept yet is
trained first.

  {program} model.teacher=resnet50 data=cifar10
  {program} 'model.teacher=[vgg13,resnet50]'

With --export nothing is filled: the teacher's answers to all training samples
as they are, without augmentation, go to FILE.safetensors or FILE.npz, which
serves as model.teacher=stored model.teacher_weights=FILE.

  {program} --export said.npz model.teacher=vgg13
  --top-k K                  keep the K largest answers of each sample, and the
                             mass that is left

Keys and groups are those of {train}.
Give the data, seed, augmentation and teacher that the sweep will have.
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
        _asked.export = _asked.top_k = None
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--export")
        parser.add_argument("--top-k", type=int)
        try:
            _, words = parser.parse_known_args(sys.argv[1:], _asked)
        except argparse.ArgumentError as e:
            raise UserError(str(e).replace("argument ", "")) from e
        if _asked.top_k is not None and _asked.export is None:
            raise UserError("--top-k is for --export FILE")
        check_config_path(words)
        sys.argv[1:] = words
        sys.argv += ["hydra.run.dir=.", "hydra/job_logging=none"]  # this is not a run
        if not {"-m", "--multirun"} & set(words):
            sys.argv.append("hydra.mode=RUN")  # experiments that are sweeps have one teacher all the same
        _main()


if __name__ == "__main__":
    main()
