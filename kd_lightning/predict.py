"""Predict the classes of images with a run's student. `python -m kd_lightning.predict RUN IMAGE… --sheet out.png`.

An image of any size and format is read as in the evaluation of the run: turned as its EXIF says, made RGB, its shorter
side resized and the middle cut out. Modules are imported where they are needed: torch takes seconds.
"""

import argparse
import sys
from pathlib import Path

from kd_lightning.utils.names import program

ON_SHEET = 30  # images


def main() -> None:
    """Exit with 0; 1 if an image could not be read, the others are done; 2 if nothing could be."""
    parser = argparse.ArgumentParser(prog=program("predict"), description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them; also data.root=…")
    parser.add_argument("--teacher", action="store_true", help="the teacher's answer beside the student's")
    parser.add_argument("--raw", action="store_true", help="the student's probabilities without calibration")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each image instead of a table")
    parser.add_argument("--top", type=int, default=5, help="how many classes (default %(default)s)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help=f"a picture sheet of the first {ON_SHEET} images")
    parser.add_argument("--trust", action="store_true", help="import code that the run's files name")
    args = parser.parse_intermixed_args()
    from kd_lightning.cli import clear_errors
    from kd_lightning.utils.quiet import quiet
    from kd_lightning.utils.trust import trusting

    with clear_errors(), trusting(args.trust):
        quiet()
        status = _run(args)
    sys.exit(status)


def _run(args: argparse.Namespace) -> int:
    from kd_lightning.evaluation.prediction import Predictor, as_json, find_images, predict, predictions_table
    from kd_lightning.utils.checks import UserError, integer
    from kd_lightning.utils.console import say

    integer("--top", args.top, ge=1)
    if args.sheet and not args.sheet.parent.is_dir():
        raise UserError(f"--sheet: there is no folder {args.sheet.parent}")
    overrides = [word for word in args.images if "=" in word and not Path(word).exists()]
    paths = find_images([Path(word) for word in args.images if word not in overrides])
    predictor = Predictor(args.run, args.teacher, overrides, args.raw)
    status, done = 0, []
    for answer in predict(predictor, paths, args.top):
        if isinstance(answer, UserError):
            print(f"error: {answer}", file=sys.stderr)
            status = 1
            continue
        done.append(answer)
        if args.json:
            print(as_json(answer, predictor.temperature), flush=True)
    if done and not args.json:
        say(predictions_table(done))
        if (t := predictor.temperature) != 1:
            say(f"The student's probabilities are calibrated (T = {t:.3g}; --raw leaves it out).")
    if done and args.sheet:
        from kd_lightning.plots.evaluation import save
        from kd_lightning.plots.predictions import Cell, predictions_figure

        cells = [Cell(path.name, pixels.numpy(), top) for path, pixels, top in done[:ON_SHEET]]
        try:
            save(predictions_figure(cells), args.sheet)
        except OSError as e:
            raise UserError(f"--sheet: cannot write {args.sheet}: {e.strerror}") from e
    return status if done else 2


if __name__ == "__main__":
    main()
