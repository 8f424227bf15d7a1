"""Runs side by side: `python -m kd_lightning.compare outputs/sweep/SWEEP … [--out DIR]`.

Prints the table and writes `comparison.md`, `.csv` and `.html` (one file, no network) next to the runs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.utils.names import program


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Exit status 2 if there is nothing to compare."""
    parser = argparse.ArgumentParser(
        prog=program("compare"),
        description="Compare runs: gain over loss=ce with its interval, best setting by validation, pictures.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run directories, or folders of them")
    parser.add_argument("--out", type=Path, help="folder of the report (default: the one that holds all the runs)")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)

    from kd_lightning.cli import clear_errors  # --help must not wait for imports
    from kd_lightning.report.folders import compare

    with clear_errors():
        compare(args.folders, args.out)


if __name__ == "__main__":
    main()
