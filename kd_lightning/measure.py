"""Measure accuracy, size and speed of students in each runtime. `python -m kd_lightning.measure RUN …`.

Each RUN is exported to every runtime, in a temporary folder; the teacher of the first one is measured too. Writes
`deployment.csv`, `.md` and `.png`. Modules are imported where they are needed: torch takes seconds.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kd_lightning.cli import clear_errors, expand
from kd_lightning.utils.checks import UserError, choice, integer
from kd_lightning.utils.console import say
from kd_lightning.utils.files import write_text
from kd_lightning.utils.names import program
from kd_lightning.utils.quiet import quiet
from kd_lightning.utils.trust import trusting

if TYPE_CHECKING:
    from kd_lightning.deploy.measure import Row
    from kd_lightning.evaluation.opened import OpenedRun


def main() -> None:
    """Exit with status 0, or 2 if nothing was measured."""
    parser = argparse.ArgumentParser(prog=program("measure"), description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, the uncompressed first; data.root=…")
    parser.add_argument("--runtimes", default="eager,compiled,onnx,pt2", help="default %(default)s")
    parser.add_argument("--samples", type=int, metavar="N", help="test samples for the accuracy (default all)")
    parser.add_argument("--threads", type=int, default=1, help="of every runtime (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/deployment"), metavar="DIR", help="default %(default)s"
    )
    parser.add_argument("--trust", action="store_true", help="import code that the run's files name")
    args = parser.parse_intermixed_args()
    with clear_errors(), trusting(args.trust):
        quiet()
        rows = list(_measured(args))
        if not rows:
            raise UserError("nothing could be measured")
        _write(rows, _conditions(args.threads), args.out)


def _write(rows: "list[Row]", conditions: str, out: Path) -> None:
    from kd_lightning.deploy.table import csv_text, markdown, terminal
    from kd_lightning.plots.deployment import deployment_figure
    from kd_lightning.plots.evaluation import save

    say(terminal(rows, conditions))
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "deployment.csv", csv_text(rows))
        write_text(out / "deployment.md", markdown(rows, conditions))
        save(deployment_figure([asdict(row) for row in rows], conditions), out / "deployment.png")
    except OSError as e:
        raise UserError(f"--out: cannot write to {out}: {e.strerror}") from e
    say(f"written: {out}/deployment.csv, .md and .png")


def _measured(args: argparse.Namespace) -> "Iterator[Row]":
    integer("--threads", args.threads, ge=1)
    if args.samples is not None:
        integer("--samples", args.samples, ge=1)
    paths, overrides = expand(args.runs)
    import torch

    from kd_lightning.deploy.measure import RUNTIMES, measure
    from kd_lightning.evaluation.opened import open_run

    runtimes = [choice("--runtimes", runtime, RUNTIMES) for runtime in args.runtimes.split(",")]
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        names = [path.resolve().name for path in paths]
        labels = names if len(set(names)) == len(names) else [str(path) for path in paths]
        models = {label: open_run(path, overrides) for label, path in zip(labels, paths, strict=True)}
        first = next(iter(models.values()))
        if (teacher := _teacher(first)) is not None:
            models = {f"teacher {teacher.card.name}": teacher} | models
        with tempfile.TemporaryDirectory() as folder:
            for label, run in models.items():
                for row in measure(label, run, runtimes, Path(folder), args.samples):
                    say(f"{row.model} in {row.runtime}: {row.accuracy:.2%}, {row.median_ms:.2f} ms")
                    yield row
    finally:
        torch.set_num_threads(before)


def _teacher(run: "OpenedRun") -> "OpenedRun | None":
    """Return the one teacher of a run in place of its student, if it takes the same inputs."""
    if not run.has_teacher:
        return None
    try:
        networks = run.find_teacher().networks
    except UserError as e:
        say(f"the teacher is left out: {e}")
        return None
    if run.card.inputs.get("tasks") or len(networks) != 1 or networks[0].adapter is not None:
        return None
    spec, model = networks[0].spec, networks[0].model.eval()
    return replace(run, student=model, card=replace(run.card, name=spec.name, kwargs=dict(spec.kwargs), extra={}))


def _conditions(threads: int) -> str:
    """Return the machine and the versions in one line."""
    from kd_lightning.utils import hardware

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
