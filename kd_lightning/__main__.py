"""All commands under one name: `kd train …` is `python -m kd_lightning.train …`, and so on."""

import runpy
import sys

from kd_lightning import listing
from kd_lightning.utils import names
from kd_lightning.utils.checks import did_you_mean
from kd_lightning.utils.signals import piped
from kd_lightning.utils.startup import import_from_here

COMMANDS = {
    "train": "train a student, or a whole sweep of them",
    "compare": "runs side by side, with statistics",
    "evaluate": "measure a finished student, or verify its numbers",
    "predict": "classify images, sentences or recordings",
    "compress": "prune or quantize a student",
    "export": "write a student to a file: onnx, pt2, safetensors",
    "measure": "size, memory and latency in each runtime",
    "cache": "fill the teacher cache ahead of a sweep",
}
LISTS = {"models": "list the networks there are", "losses": "list the losses there are"}
LISTED = {"models": listing.models, "losses": listing.losses}


def main() -> None:
    """Run the command that the first word names. Exit status 2 if there is none of that name."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if words else 2)
    name, rest = words[0], words[1:]
    if name in COMMANDS:
        names.PREFIX[0] = "kd "
        import_from_here()
        sys.argv = [sys.argv[0], *rest]
        # As `python -m` does it, so that the processes that Lightning starts repeat that command.
        runpy.run_module(f"kd_lightning.{name}", run_name="__main__", alter_sys=True)
    elif name in LISTS:
        if rest:
            print(f"usage: kd {name}\n\n{LISTS[name].capitalize()}, one line each.")
            sys.exit(0 if rest[0] in ("-h", "--help") else 2)
        with piped():
            print("\n".join(LISTED[name]()))
    else:
        print(f"error: kd has no command {name!r}{did_you_mean(name, COMMANDS | LISTS)}\n{usage()}", file=sys.stderr)
        sys.exit(2)


def usage() -> str:
    """Return all commands, one line each."""
    lines = [f"  {name:<10}{what}" for name, what in (COMMANDS | LISTS).items()]
    return "\n".join(["usage: kd COMMAND …", "", *lines, "", "kd COMMAND --help tells what it takes."])


if __name__ == "__main__":
    main()
