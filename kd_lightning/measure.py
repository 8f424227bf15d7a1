"""Accuracy, size and speed of students in each runtime. `python -m kd_lightning.measure RUN …`.

Each RUN is exported to every runtime, in a temporary folder; the teacher of the first one is measured too. Writes
`deployment.csv`, `.md` and `.png`.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from kd_lightning.cli import clear_errors
from kd_lightning.deploy.measure import RUNTIMES, Row, measure
from kd_lightning.deploy.source import Source, open_source
from kd_lightning.deploy.table import comma_separated, markdown, picture, terminal
from kd_lightning.evaluate import expand
from kd_lightning.evaluation.found import find_teacher
from kd_lightning.plots.evaluation import save
from kd_lightning.teachers import LiveTeacher
from kd_lightning.training.summary import teacher_name
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import UserError, choice, integer
from kd_lightning.utils.console import say
from kd_lightning.utils.quiet import quiet


def main() -> None:
    """Exit status 0, or 2 if nothing was measured."""
    parser = argparse.ArgumentParser(prog="python -m kd_lightning.measure", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, the uncompressed first; data.root=…")
    parser.add_argument("--runtimes", default=",".join(RUNTIMES), help="default %(default)s")
    parser.add_argument("--images", type=int, metavar="N", help="test images for the accuracy (default all)")
    parser.add_argument("--threads", type=int, default=1, help="of every runtime (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/deployment"), metavar="DIR", help="default %(default)s"
    )
    args = parser.parse_intermixed_args()
    with clear_errors():
        quiet()
        rows = list(_measured(args))
        if not rows:
            raise UserError("nothing could be measured")
        conditions = _conditions(args.threads)
        say(terminal(rows, conditions))
        try:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "deployment.csv").write_text(comma_separated(rows))
            (args.out / "deployment.md").write_text(markdown(rows, conditions))
            save(picture(rows, conditions), args.out / "deployment.png")
        except OSError as e:
            raise UserError(f"--out: cannot write to {args.out}: {e.strerror}") from e
        say(f"written: {args.out}/deployment.csv, .md and .png")


def _measured(args: argparse.Namespace) -> Iterator[Row]:
    integer("--threads", args.threads, least=1)
    if args.images is not None:
        integer("--images", args.images, least=1)
    runtimes = [choice("--runtimes", runtime, RUNTIMES) for runtime in args.runtimes.split(",")]
    paths, overrides = expand(args.runs)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        names = [path.resolve().name for path in paths]
        labels = names if len(set(names)) == len(names) else [str(path) for path in paths]
        sources = {label: open_source(path, overrides) for label, path in zip(labels, paths, strict=True)}
        first = next(iter(sources.values()))
        if (teacher := _teacher(first)) is not None:
            sources = {f"teacher {teacher.about['name']}": teacher} | sources
        with tempfile.TemporaryDirectory() as folder:
            for label, source in sources.items():
                for row in measure(label, source, runtimes, Path(folder), args.images):
                    say(f"{row.model} in {row.runtime}: {row.accuracy:.2%}, {row.median_ms:.2f} ms")
                    yield row
    finally:
        torch.set_num_threads(before)


def _teacher(source: Source) -> Source | None:
    """The one teacher of a run as it is, if it takes the same images."""
    if "teacher" not in source.run.metrics:
        return None
    try:
        teacher = find_teacher(source.run, source.config, source.data)
    except UserError as e:
        say(f"the teacher is left out: {e}")
        return None
    if not isinstance(teacher, LiveTeacher) or teacher.view is not None:
        return None
    kwargs = dict(source.config.model.teacher_kwargs)
    about = source.about | {"name": teacher_name(source.config), "kwargs": kwargs}
    return replace(source, student=teacher.model, about=about)


def _conditions(threads: int) -> str:
    here = hardware.describe("cpu")
    versions = [f"torch {here['versions']['torch']}"]
    try:
        import onnxruntime

        versions.append(f"onnxruntime {onnxruntime.__version__}")
    except ImportError:
        pass
    device = here["device"].partition(",")[0]
    return f"{device}, {threads} thread(s) of {os.cpu_count()}, {', '.join(versions)}."


if __name__ == "__main__":
    main()
