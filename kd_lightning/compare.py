"""Runs side by side. `python -m kd_lightning.compare outputs/sweep/<sweep> … [--out DIR]`.

Prints the table and writes `comparison.md`, `.csv` and `.html` (one file, no network) next to the runs. With
`--verify` it tests the runs again instead, as `kd_lightning.evaluate` does.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from kd_lightning import runs
from kd_lightning.cli import clear_errors
from kd_lightning.report.comparison import Comparison, compare_runs
from kd_lightning.report.sweep import announcement
from kd_lightning.report.tables import csv_text, markdown, terminal_table
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.distributed import is_first_rank
from kd_lightning.utils.quiet import quiet


class SweepTable(Callback):
    """Begins a Hydra multirun with what it will cost, and ends it with the comparison of its runs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if words := announcement(config):
            say(words)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if is_first_rank() and any(runs.is_finished(path) for path in runs.below(folder)):
            compare([folder])


def compare(folders: Sequence[Path], out: Path | None = None) -> Comparison:
    """Prints and writes the comparison of all finished runs below `folders`.

    Raises UserError if there is none, or `out` (default: where the runs are) cannot be written.
    """
    comparison = compare_folders(folders)
    say(terminal_table(comparison))
    out = out or Path(os.path.relpath(os.path.commonpath([folder.resolve() for folder in folders])))
    say(f"report: {write_report(comparison, out, folders)}")
    say(f"again: python -m kd_lightning.compare {' '.join(map(str, folders))}")
    return comparison


def compare_folders(folders: Sequence[Path]) -> Comparison:
    """Compares the finished runs below `folders`; the others become notes. Raises UserError if none is finished."""
    there = [folder for folder in folders if folder.is_dir()]
    left = [f"there is no folder {folder}" for folder in folders if folder not in there]
    left += [f"no run below {folder}" for folder in there if not runs.below(folder)]
    paths = list({path.resolve(): path for folder in folders for path in runs.below(folder)}.values())
    found, unfinished = [], []
    for path in paths:
        if not runs.is_finished(path):
            unfinished.append(path)
            continue
        try:
            found.append(runs.read(path))
        except UserError as e:
            left.append(f"left out: {e}")
    if unfinished:
        left.append(f"not finished, left out: {', '.join(map(str, unfinished))}")
    if not found:
        raise UserError("no finished run: " + "; ".join(left))
    return compare_runs(found, left)


def write_report(comparison: Comparison, out: Path, folders: Sequence[Path]) -> Path:
    """Writes the three files into `out`; returns the path of the page."""
    from kd_lightning.report.page import page  # with matplotlib and TensorBoard, which only the end of a sweep needs

    title = "Comparison of " + ", ".join(map(str, folders))
    files = {"md": markdown(comparison, title), "csv": csv_text(comparison), "html": page(comparison, title)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, text in files.items():
            (out / f"comparison.{suffix}").write_text(text, encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot write the report to {out}: {e.strerror}; choose another folder with --out") from e
    return out / "comparison.html"


def main(argv: Sequence[str] | None = None) -> None:
    """Exit status 2 if there is nothing to compare, 1 if a run does not reproduce (`--verify`)."""
    parser = argparse.ArgumentParser(prog="python -m kd_lightning.compare", description="Runs side by side.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run directories, or folders of them")
    parser.add_argument("--out", type=Path, help="folder of the report (default: the one that holds all the runs)")
    parser.add_argument(
        "--verify", action="store_true", help="test the runs again, and check that their test numbers come out again"
    )
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    with clear_errors():
        if args.verify:
            sys.exit(_verify(args.folders))
        compare(args.folders, args.out)


def _verify(folders: Sequence[Path]) -> int:
    from kd_lightning.evaluate import expand, verify_all  # with all that a test needs

    quiet()
    return verify_all(*expand(list(map(str, folders))))


if __name__ == "__main__":
    main()
