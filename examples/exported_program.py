"""Asks an exported program with PyTorch alone: python exported_program.py model.pt2 image.png

Export it with: python -m kd_lightning.export RUN --format pt2 --with-preprocessing
"""

import json
import sys

import numpy as np
import torch
from PIL import Image

extra = {"kd_lightning": ""}
model = torch.export.load(sys.argv[1], extra_files=extra).module()
about = json.loads(extra["kd_lightning"])
size = about["image_size"]
pixels = np.array(Image.open(sys.argv[2]).convert("RGB").resize((size, size)))
with torch.inference_mode():
    probabilities = model(torch.from_numpy(pixels)[None]).softmax(1)[0]
print(about["classes"][int(probabilities.argmax())], f"{float(probabilities.max()):.1%}")
