"""The comparison of folders of runs: printed, and written as a page, Markdown and CSV."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from kd_lightning import runs
from kd_lightning.report.comparison import Comparison, compare_runs
from kd_lightning.report.tables import csv_text, markdown, terminal_table
from kd_lightning.report.words import commands
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.files import write_text


def compare(folders: Sequence[Path], out: Path | None = None) -> Comparison:
    """Print and write the comparison of all finished runs below `folders`.

    Args:
        folders: Run directories, or folders of them.
        out: Folder of the report; by default the one that holds all the runs.

    Raises:
        UserError: If no run is finished, or `out` cannot be written.
    """
    comparison = compare_folders(folders)
    told = commands(comparison)
    say(terminal_table(comparison))
    for purpose, command in told:
        say(f"\n{purpose}:\n{command}")
    out = out or Path(os.path.relpath(os.path.commonpath([folder.resolve() for folder in folders])))
    say(f"\nreport: {write_report(comparison, out, folders, told)}")
    say(f"again: {shlex.join(['python', '-m', 'kd_lightning.compare', *map(str, folders)])}")
    return comparison


def compare_folders(folders: Sequence[Path]) -> Comparison:
    """Compare the finished runs below `folders`; what else lies there becomes a note.

    Raises:
        UserError: If no run is finished.
    """
    there = [folder for folder in folders if folder.is_dir()]
    left = [f"there is no folder {folder}" for folder in folders if folder not in there]
    left += [f"no run below {folder}" for folder in there if not runs.below(folder)]
    paths = list({path.resolve(): path for folder in folders for path in runs.below(folder)}.values())
    found, unfinished = [], []
    for path in paths:
        try:
            if how := runs.diverged(path):
                found.append(runs.Run(path, runs.read_config(path, "run"), how))
            elif runs.is_finished(path):
                found.append(runs.read(path))
            else:
                unfinished.append(path)
        except UserError as e:
            left.append(f"left out: {e}")
    if unfinished:
        left.append(f"not finished, left out: {', '.join(map(str, unfinished))}")
    if all(run.metrics.get("diverged") for run in found):
        left += [f"{run.path} has diverged" for run in found]
        raise UserError("no finished run: " + "; ".join(left))
    return compare_runs(found, left)


def write_report(
    comparison: Comparison, out: Path, folders: Sequence[Path], told: Sequence[tuple[str, str]] = ()
) -> Path:
    """Write the three files into `out`; return the path of the page.

    Raises:
        UserError: If `out` cannot be written.
    """
    from kd_lightning.report.page import page  # with matplotlib and TensorBoard, which no test of a table needs

    title = "Comparison of " + ", ".join(map(str, folders))
    files = {"md": markdown(comparison, title, told), "csv": csv_text(comparison)}
    files["html"] = page(comparison, title, told)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, text in files.items():
            shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")  # names that are no UTF-8
            write_text(out / f"comparison.{suffix}", shown)
    except OSError as e:
        raise UserError(f"cannot write the report to {out}: {e.strerror}; choose another folder with --out") from e
    return out / "comparison.html"
