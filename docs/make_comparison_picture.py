"""Accuracy by setting, as the page of `kd_lightning.compare` shows it, as a PNG for the README and results.md.

python docs/make_comparison_picture.py docs/pictures/study.png outputs/sweep/<sweep> …
"""

import sys
from pathlib import Path

import matplotlib

from kd_lightning.compare import compare_folders
from kd_lightning.plots.style import STYLE
from kd_lightning.report.figures import accuracy_figure

if __name__ == "__main__":
    out, *folders = map(Path, sys.argv[1:])
    with matplotlib.rc_context(STYLE):
        accuracy_figure(compare_folders(folders)).savefig(out, dpi=150)
