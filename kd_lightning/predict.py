"""What a run's student sees in images. `python -m kd_lightning.predict RUN IMAGE…|FOLDER --sheet out.png`.

An image of any size and format is turned as its EXIF says, made RGB and a square of the run's image size: its shorter
side is resized and the middle cut out, as in the evaluation of photos.
"""

import argparse
import sys
from pathlib import Path

from kd_lightning.cli import clear_errors
from kd_lightning.evaluation.prediction import Prediction, Predictor, find_images, predict
from kd_lightning.evaluation.sheet import as_json, sheet, table
from kd_lightning.plots.evaluation import save
from kd_lightning.utils.checks import UserError, integer
from kd_lightning.utils.console import say
from kd_lightning.utils.quiet import quiet

__all__ = ["Prediction", "Predictor", "find_images", "predict"]

ON_SHEET = 30  # images


def main() -> None:
    """Exit status 0; 1 if an image could not be read, the others are done; 2 if nothing could be."""
    parser = argparse.ArgumentParser(prog="python -m kd_lightning.predict", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them; also data.root=…")
    parser.add_argument("--teacher", action="store_true", help="the teacher's answer beside the student's")
    parser.add_argument("--json", action="store_true", help="a line of JSON an image instead of a table")
    parser.add_argument("--top", type=int, default=5, help="how many classes (default %(default)s)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help=f"a picture sheet of the first {ON_SHEET} images")
    args = parser.parse_intermixed_args()
    with clear_errors():
        quiet()
        status = _run(args)
    sys.exit(status)


def _run(args: argparse.Namespace) -> int:
    integer("--top", args.top, least=1)
    if args.sheet and not args.sheet.parent.is_dir():
        raise UserError(f"--sheet: there is no folder {args.sheet.parent}")
    overrides = [word for word in args.images if "=" in word and not Path(word).exists()]
    paths = find_images([Path(word) for word in args.images if word not in overrides])
    predictor = Predictor(args.run, args.teacher, overrides)
    status, done = 0, []
    for answer in predict(predictor, paths, args.top):
        if isinstance(answer, UserError):
            print(f"error: {answer}", file=sys.stderr)
            status = 1
            continue
        done.append(answer)
        if args.json:
            print(as_json(answer), flush=True)
    if done and not args.json:
        say(table(done))
    if done and args.sheet:
        try:
            save(sheet(done[:ON_SHEET]), args.sheet)
        except OSError as e:
            raise UserError(f"--sheet: cannot write {args.sheet}: {e.strerror}") from e
    return status


if __name__ == "__main__":
    main()
