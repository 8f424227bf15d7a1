"""Write a finished student to a file for another runtime. `python -m kd_lightning.export RUN --format onnx`.

The file holds the class names and all else that is needed to use it. Before it gets its name it is read again by its
own runtime and compared with PyTorch on real test samples; if it differs, nothing is left. Modules are imported where
they are needed: torch takes seconds.
"""

import argparse
from pathlib import Path

from kd_lightning.cli import clear_errors
from kd_lightning.utils.console import say
from kd_lightning.utils.names import program
from kd_lightning.utils.quiet import quiet
from kd_lightning.utils.trust import trusting


def main() -> None:
    """Exit with status 0, or 2 if nothing was written."""
    parser = argparse.ArgumentParser(prog=program("export"), description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="data.root=… if the data has moved")
    parser.add_argument("--format", default="onnx", metavar="FORMAT", help="onnx, pt2 or safetensors (default onnx)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: model.<suffix> in the run directory")
    parser.add_argument("--dynamic-batch", action="store_true", help="any number of samples at once, not only one")
    parser.add_argument(
        "--fp16", action="store_true", help="weights and arithmetic in float16; inputs stay as they are"
    )
    parser.add_argument("--with-preprocessing", action="store_true", help="takes pixels, or waveforms, as they are")
    parser.add_argument("--raw", action="store_true", help="logits as trained, without the temperature of calibration")
    parser.add_argument("--tolerance", type=float, help="largest difference of a logit (default 1e-4 in float32)")
    parser.add_argument("--force", action="store_true", help="write over a file that exists")
    parser.add_argument("--trust", action="store_true", help="import code that the run's files name")
    args = parser.parse_intermixed_args()
    with clear_errors(), trusting(args.trust):
        quiet()
        from kd_lightning.deploy.files.write import export
        from kd_lightning.evaluation.opened import open_run

        path, parity = export(
            open_run(args.run, args.overrides),
            args.format,
            args.out,
            dynamic_batch=args.dynamic_batch,
            fp16=args.fp16,
            preprocessing=args.with_preprocessing,
            raw=args.raw,
            tolerance=args.tolerance,
            force=args.force,
        )
        say(f"{path}: {path.stat().st_size:,} bytes; {parity}")


if __name__ == "__main__":
    main()
