"""Asks a run directory, or any exported file: python run_directory.py outputs/train/RUN image.png"""

import sys

from PIL import Image

import kd_lightning

model = kd_lightning.load(sys.argv[1])
answer = model(Image.open(sys.argv[2]))
print(answer.labels[0], f"{answer.probabilities.max():.1%}")
