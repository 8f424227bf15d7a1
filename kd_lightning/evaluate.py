"""Evaluate finished runs: scores, calibration, corruptions and latency. `python -m kd_lightning.evaluate RUN …`.

Writes `evaluation.json`, which `kd_lightning.evaluation.record` describes, and `evaluation_*.png` into each run
directory, and prints a table. Modules are imported where they are needed: torch takes seconds.
"""

import argparse
import sys
from pathlib import Path

from kd_lightning.utils.names import program

IMAGES = 1000  # of the test set, for each of 15 corruptions: a standard error below 1.6 points


def main() -> None:
    """Exit with 0; 1 if a run does not reproduce (`--verify`); 2 if one could not be evaluated; others are done."""
    parser = argparse.ArgumentParser(prog=program("evaluate"), description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directory; also data=NAME, data.root=…, …")
    parser.add_argument(
        "--images", type=int, default=IMAGES, help="test images to corrupt (default %(default)s; 0: none)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="only check that metrics.json's test numbers come out again"
    )
    parser.add_argument("--trust", action="store_true", help="import code that the run's files name")
    args = parser.parse_intermixed_args()
    from kd_lightning.cli import clear_errors, expand
    from kd_lightning.utils.checks import integer
    from kd_lightning.utils.quiet import quiet
    from kd_lightning.utils.trust import trusting

    with clear_errors(), trusting(args.trust):
        quiet()
        integer("--images", args.images, ge=0)
        paths, overrides = expand(args.runs)
        status = _verify_all(paths, overrides) if args.verify else _evaluate_all(paths, overrides, args.images)
    sys.exit(status)


def _evaluate_all(paths: list[Path], overrides: list[str], images: int) -> int:
    from kd_lightning import runs
    from kd_lightning.cli import fail
    from kd_lightning.utils.checks import UserError
    from kd_lightning.utils.console import say
    from kd_lightning.utils.startup import quick_imports

    with quick_imports():
        from kd_lightning.evaluation.record import evaluate
        from kd_lightning.evaluation.table import conditions, evaluation_table

    status = 0
    for path in paths:
        try:
            values = evaluate(path, overrides, images)
            say(f"{path} · {next(iter(values.get('tasks', {'': values}).values()))['data']['name']}")
            say(evaluation_table(values))
            say(conditions(values))
            say(f"written: {path / runs.EVALUATION}, and pictures {path}/evaluation_*.png")
        except UserError as e:
            status = fail(e)
    return status


def _verify_all(paths: list[Path], overrides: list[str]) -> int:
    from kd_lightning.cli import fail
    from kd_lightning.evaluation.verify import verify
    from kd_lightning.utils.checks import UserError
    from kd_lightning.utils.console import say

    status = 0
    for path in paths:
        try:
            result = verify(path, overrides)
        except UserError as e:
            status = fail(e)
            continue
        say(result.table())
        say("\n".join([*result.notes, result.verdict]))
        status = max(status, 0 if result.ok else 1)
    return status


if __name__ == "__main__":
    main()
