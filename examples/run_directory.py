"""Ask a run directory, or any exported file: python run_directory.py outputs/train/RUN image.png"""

import sys

import kd_lightning

answer = kd_lightning.load(sys.argv[1])(sys.argv[2])
print(answer.labels[0], f"{answer.probabilities.max():.1%}")
