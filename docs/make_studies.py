"""Make the tables and pictures of the studies from their small data: `python docs/make_studies.py [CSV …]`.

Reads docs/studies/*.csv, a line for each run with the columns study, setting, student, seed, images_seen, labels,
val_accuracy, test_accuracy, test_nll, test_ece, calibrated_nll, calibrated_ece, temperature, seconds, revision and
command. Setting `ce`, or `alone` where there is no `ce`, is a study's baseline. Prints Markdown and writes
docs/pictures/study_*.png; for settings `T<temperature>_alpha<alpha>` also study_*_grid.png, a heat map of validation.
"""

import csv
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from kd_lightning.plots.comparison import Scores, accuracy_figure, grid_figure
from kd_lightning.plots.style import STYLE
from kd_lightning.report.comparison import gain_notes, seeds_words
from kd_lightning.report.words import interval_words, p_words, score_words, signed
from kd_lightning.utils import tables
from kd_lightning.utils.gains import gains_over
from kd_lightning.utils.statistics import mean_std, verdict
from kd_lightning.utils.tables import Column

HERE = Path(__file__).parent
Runs = Sequence[Mapping[str, str]]

COLUMNS = (
    Column("setting", "setting"),
    Column("gain", "gain, points", signed),
    Column("interval", "95 % interval", str, "right"),
    Column("verdict", "verdict"),
    Column("test", "test, %", score_words),
    Column("validation", "validation, %", score_words),
    Column("n", "n", "d"),
    Column("p", "p (corrected)", p_words),
    Column("nll", "NLL", ".3f"),
    Column("ece", "ECE", ".3f"),
    Column("calibrated_nll", "NLL, calibrated", ".3f"),
    Column("calibrated_ece", "ECE, calibrated", ".3f"),
    Column("images", "images seen", ",d"),
    Column("labels", "labels", ",d"),
    Column("minutes", "minutes", ".1f"),
)


def study(runs: Runs, baseline: str = "ce") -> tuple[list[dict[str, Any]], list[Scores], list[str]]:
    """Return the table's rows, the picture's lines, and the notes of one study with one student."""
    settings: dict[str, list[Mapping[str, str]]] = {}
    for run in runs:
        settings.setdefault(run["setting"], []).append(run)
    scores = {name: _by_seed(some, "test_accuracy") for name, some in settings.items()}
    gains = gains_over(scores, baseline) if baseline in scores else {}
    rows, lines, notes = [], [], []
    for name in sorted(settings, key=lambda name: name != baseline):
        some, gain = settings[name], gains.get(name)
        told = "baseline" if name == baseline else verdict(gain) if gain else "–"
        more = seeds_words(gain) if gain else ""
        row: dict[str, Any] = {"setting": f"`{name}`", "verdict": f"{told}; {more}" if more else told}
        row |= {"test": list(scores[name].values()), "n": len(scores[name])}
        row["validation"] = list(_by_seed(some, "val_accuracy").values()) or None
        row |= {"nll": _mean(some, "test_nll"), "ece": _mean(some, "test_ece")}
        row |= {key: _mean(some, key) for key in ("calibrated_nll", "calibrated_ece")}
        row |= {"images": _whole(some, "images_seen"), "labels": _whole(some, "labels")}
        seconds = _mean(some, "seconds")
        row["minutes"] = None if seconds is None else seconds / 60
        low = high = None
        if gain:
            row |= {"gain": gain.mean, "interval": interval_words(gain), "p": gain.p}
            low, high = gain.low, gain.high
            found = gain_notes(gain, len(scores), scores[name], scores[baseline])
            notes += [f"`{name}`: {note}." for note in found]
        base = mean_std(list(scores[baseline].values()))[0] if baseline in scores else None
        rows.append(row)
        lines.append(Scores(name, list(scores[name].values()), told, base, low, high))
    return rows, lines, notes


def _by_seed(runs: Runs, key: str) -> dict[str, float]:
    return {run["seed"]: 100 * float(run[key]) for run in runs if run.get(key)}


def _mean(runs: Runs, key: str) -> float | None:
    known = [float(run[key]) for run in runs if run.get(key)]
    return mean_std(known)[0] if known else None


def _whole(runs: Runs, key: str) -> int | None:
    mean = _mean(runs, key)
    return None if mean is None else round(mean)


def grid(runs: Runs) -> dict[tuple[float, float], float]:
    """Return (temperature, alpha) → mean validation accuracy in percent, of settings `T<temperature>_alpha<alpha>`."""
    cells: dict[tuple[float, float], list[Mapping[str, str]]] = {}
    for run in runs:
        if found := re.fullmatch(r"T([\d.]+)_alpha([\d.]+)", run["setting"]):
            cells.setdefault((float(found[1]), float(found[2])), []).append(run)
    means = {cell: _mean(some, "val_accuracy") for cell, some in cells.items()}
    return {cell: 100 * mean for cell, mean in means.items() if mean is not None}


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of a study's CSV that have a test score."""
    with open(path, newline="", encoding="utf-8") as f:
        return [run for run in csv.DictReader(f) if run.get("test_accuracy")]


def main(paths: Sequence[Path], pictures: Path = HERE / "pictures") -> None:
    """Print the tables and write the pictures."""
    for path in paths:
        groups: dict[tuple[str, str], list[dict[str, str]]] = {}
        for run in read(path):
            groups.setdefault((run["study"], run["student"]), []).append(run)
        for (name, student), runs in groups.items():
            baseline = next((name for name in ("ce", "alone") if any(run["setting"] == name for run in runs)), "ce")
            rows, lines, notes = study(runs, baseline)
            columns = [c for c in COLUMNS if any(row.get(c.key) not in (None, "") for row in rows)]
            words = name.removesuffix(student).replace("_", " ").strip()
            print(f"### {words}: {student}\n\n{tables.markdown(columns, rows)}\n")
            for note in notes:
                print(f"- {note}")
            commands = dict.fromkeys(run.get("command", "") for run in runs if run["seed"] == runs[0]["seed"])
            print("\n```bash\n" + "\n".join(filter(None, commands)) + "\n```\n")
            stem = f"study_{name if name.endswith(student) else f'{name}_{student}'}"
            with matplotlib.rc_context(STYLE):
                accuracy_figure(lines).savefig(pictures / f"{stem}.png", dpi=150)
                if cells := grid(runs):
                    grid_figure(cells, "validation accuracy, %").savefig(pictures / f"{stem}_grid.png", dpi=150)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]] or sorted((HERE / "studies").glob("*.csv")))
