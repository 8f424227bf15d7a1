"""Make a finished student smaller, as another run. `python -m kd_lightning.compress RUN --prune 0.5 --structured`.

`--prune R` removes the fraction R of all weights, or of each layer's channels (`--structured`), and trains on.
`--quantize int8` rounds weights and activations to 8 bits; `--qat` trains on through the rounding. With `--distill` a
teacher teaches in that training: the run's own, or the student as it is. The training is the run's own, with a tenth of
its epochs and a tenth (`--qat`: a hundredth) of its learning rate; `trainer.max_epochs=…` and `optimizer.lr=…` change
that. Modules are imported where they are needed: torch takes seconds.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kd_lightning import runs
from kd_lightning.cli import clear_errors
from kd_lightning.utils.checks import UserError, choice
from kd_lightning.utils.console import say
from kd_lightning.utils.names import program
from kd_lightning.utils.quiet import quiet
from kd_lightning.utils.trust import trusting

if TYPE_CHECKING:
    from rich.table import Table

AUTO = "auto"


def main() -> None:
    """Exit with status 0, or 2 if nothing was made."""
    parser = argparse.ArgumentParser(prog=program("compress"), description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of the training: trainer.max_epochs=5, loss=kd …"
    )
    parser.add_argument("--prune", type=float, metavar="R", help="fraction to remove, between 0 and 1")
    parser.add_argument("--structured", action="store_true", help="whole channels instead of single weights")
    parser.add_argument("--steps", type=int, default=1, help="prune in so many steps, trained on after each")
    parser.add_argument("--quantize", metavar="TYPE", help="int8")
    parser.add_argument("--qat", action="store_true", help="train on through the rounding")
    parser.add_argument(
        "--calibration", type=int, default=1024, help="training samples for ranges (default %(default)s)"
    )
    parser.add_argument(
        "--distill", nargs="?", const=AUTO, metavar="WHO", help="teacher or student; default the run's teacher"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN with what was done at its end")
    parser.add_argument("--trust", action="store_true", help="import code that the run's files name")
    args = parser.parse_intermixed_args()
    if args.distill and "=" in args.distill:  # `--distill key=value`: the value is not its own
        args.overrides, args.distill = [*args.overrides, args.distill], AUTO
    with clear_errors(), trusting(args.trust):
        quiet()
        out = _run(args)
        say(_before_after(runs.read(args.run), runs.read(out)))
        say(f"next: python -m kd_lightning.export {out}, or compress it further")


def _run(args: argparse.Namespace) -> Path:
    if (args.prune is None) == (args.quantize is None):
        raise UserError("give either --prune R or --quantize int8; each is a run, which the next can start from")
    if args.prune is not None and args.qat:
        raise UserError("--qat goes with --quantize int8")
    if args.quantize is not None:
        choice("--quantize", args.quantize, ("int8",))
        if args.structured or args.steps != 1:
            raise UserError("--structured and --steps go with --prune")
        if args.distill and not args.qat:
            raise UserError("--distill needs a training: add --qat")
    from kd_lightning.deploy.recipe import TEACHERS, default_teacher
    from kd_lightning.deploy.steps import prune, quantize
    from kd_lightning.evaluation.opened import open_run
    from kd_lightning.evaluation.overrides import CHANGEABLE

    run = open_run(args.run, [word for word in args.overrides if word.partition("=")[0] in CHANGEABLE])
    if run.card.inputs.get("tasks"):
        raise UserError(f"compress: the student in {args.run} has several tasks; only students of one are compressed")
    distill = default_teacher(run) if args.distill == AUTO else args.distill
    if distill is not None:
        choice("--distill", distill, TEACHERS)
    if args.prune is not None:
        kind = "channels" if args.structured else "weights"
        out = args.out or _beside(args.run, f"{kind}{args.prune:g}")
        return prune(
            run,
            args.prune,
            out,
            structured=args.structured,
            steps=args.steps,
            distill=distill,
            overrides=args.overrides,
        )
    out = args.out or _beside(args.run, "int8-qat" if args.qat else "int8")
    return quantize(run, out, qat=args.qat, distill=distill, count=args.calibration, overrides=args.overrides)


def _beside(run: Path, what: str) -> Path:
    if run.name in ("", ".."):  # the folder one is in has no name
        run = run / ".." / run.resolve().name
    return run.with_name(f"{run.resolve().name}-{what}")


def _before_after(before: runs.Run, after: runs.Run) -> "Table":
    from rich.table import Table

    table = Table(caption=f"The student that is deployed, select={after.metrics['select']}.", caption_justify="left")
    for column in ("student", "test acc", "params", "MACs", "zeros"):
        table.add_column(column, justify="left" if column == "student" else "right", overflow="fold")
    for run in (before, after):
        student = run.metrics["student"]
        zeros = run.metrics.get("compression", {}).get("zeros", 0.0)
        table.add_row(
            str(run.path),
            f"{run.student['test']['accuracy']:.2%}",
            f"{student['parameters']:,}",
            f"{student['macs'] / 1e6:,.1f} M",
            f"{zeros:.0%}",
        )
    return table


if __name__ == "__main__":
    main()
