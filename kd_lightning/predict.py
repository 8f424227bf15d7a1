"""Predict the classes of images, sentences or recordings. `python -m kd_lightning.predict RUN IMAGE…`.

With a student of text: `python -m kd_lightning.predict RUN "a sentence" lines.txt`; with one of recordings, `.wav` and
`.flac` files of any sampling rate. An image of any size and format is read as in the evaluation of the run: turned as
its EXIF says, made RGB, its shorter side resized and the middle cut out. Modules are imported where they are needed:
torch takes seconds.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_lightning.utils.names import program

if TYPE_CHECKING:
    from kd_lightning.evaluation.opened import OpenedRun

ON_SHEET = 30  # images


def main() -> None:
    """Exit with 0; 1 if a sample could not be read, the others are done; 2 if nothing could be."""
    parser = argparse.ArgumentParser(prog=program("predict"), description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    what = "image or audio files, or folders of them; sentences, or .txt files with one in each line; also data.root=…"
    parser.add_argument("samples", nargs="+", metavar="SAMPLE", help=what)
    parser.add_argument("--teacher", action="store_true", help="the teacher's answer beside the student's")
    parser.add_argument("--raw", action="store_true", help="the student's probabilities without calibration")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each sample instead of a table")
    parser.add_argument("--top", type=int, default=5, help="how many classes (default %(default)s)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help=f"a sheet of the first {ON_SHEET} images or spectra")
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
    from kd_lightning.utils.checks import UserError, integer
    from kd_lightning.utils.console import say
    from kd_lightning.utils.startup import quick_imports

    with quick_imports():
        from kd_lightning.evaluation.answers import as_json, predictions_table
        from kd_lightning.evaluation.opened import open_run

    integer("--top", args.top, ge=1)
    if args.sheet and not args.sheet.parent.is_dir():
        raise UserError(f"--sheet: there is no folder {args.sheet.parent}")
    if args.sheet and args.sheet.exists():  # `--sheet *.png` would write over the first picture
        raise UserError(f"--sheet: {args.sheet} exists; give another name")
    overrides = [word for word in args.samples if _is_override(word)]
    opened = open_run(args.run, overrides)
    words = [word for word in args.samples if word not in overrides]
    if not words:
        raise UserError("give images, sentences or recordings beside the keys")
    predictor, predictions = _opened(opened, words, args)
    status, done = 0, []
    for answer in predictions:
        if isinstance(answer, UserError):
            print(f"error: {answer}", file=sys.stderr)
            status = 1
            continue
        done.append(answer)
        if args.json:
            print(as_json(answer, predictor.temperatures), flush=True)
    if done and not args.json:
        say(predictions_table(done))
        for note in predictor.notes(done):
            say(note)
        if any(t != 1 for t in predictor.temperatures.values()):
            told = ", ".join(f"{task} {t:.3g}".strip() for task, t in predictor.temperatures.items())
            say(f"The student's probabilities are calibrated (T = {told}; --raw leaves it out).")
    if done and args.sheet:
        from kd_lightning.data.find_files import printable
        from kd_lightning.plots.evaluation import save
        from kd_lightning.plots.predictions import Cell, predictions_figure

        cells = [Cell(printable(one.path.name), one.pixels.numpy(), one.top) for one in done[:ON_SHEET]]
        try:
            save(predictions_figure(cells), args.sheet)
        except OSError as e:
            raise UserError(f"--sheet: cannot write {args.sheet}: {e.strerror}") from e
    return status if done else 2


def _is_override(word: str) -> bool:
    """Return whether a word is `key=value`, not a file or a sentence with such a sign in it."""
    return re.fullmatch(r"[+~]*\w[\w./]*=\S*", word) is not None and not os.path.exists(word)


def _opened(opened: "OpenedRun", words: list[str], args: argparse.Namespace) -> tuple[Any, Iterator[Any]]:
    """Return what predicts the run's kind of data, and its predictions."""
    from kd_lightning.data.audio.read import RECORDINGS
    from kd_lightning.data.images.folder import images
    from kd_lightning.evaluation import prediction, recordings, sentences
    from kd_lightning.utils.checks import UserError

    kind = opened.card.preprocessing.get("kind")
    if kind == "images":
        pictures = images().named(words)
        predictor = prediction.Predictor(opened, args.teacher, args.raw)
        return predictor, prediction.predict(predictor, pictures, args.top)
    if kind == "audio":
        files = RECORDINGS.named(words)
        listener = recordings.RecordingPredictor(opened, args.teacher, args.raw)
        return listener, recordings.predict(listener, files, args.top)
    if kind != "text":
        raise UserError(f"predict: the run's data is {kind!r}; predict is for images, text and recordings")
    if args.sheet:
        raise UserError("--sheet is for images and recordings; the run is of text")
    found = sentences.find_sentences(words)
    reader = sentences.SentencePredictor(opened, args.teacher, args.raw)
    return reader, sentences.predict(reader, found, args.top)


if __name__ == "__main__":
    main()
