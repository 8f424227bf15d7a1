"""Draw accuracy by setting, as the page of `kd_lightning.compare` does, as a PNG for the docs.

python docs/make_comparison_picture.py docs/pictures/study.png outputs/sweep/SWEEP …
"""

import sys
from pathlib import Path

import matplotlib

from kd_lightning.plots.comparison import accuracy_figure
from kd_lightning.plots.style import STYLE
from kd_lightning.report.figures import accuracy_lines
from kd_lightning.report.folders import compare_folders

if __name__ == "__main__":
    out, *folders = map(Path, sys.argv[1:])
    with matplotlib.rc_context(STYLE):
        accuracy_figure(accuracy_lines(compare_folders(folders))).savefig(out, dpi=150)
