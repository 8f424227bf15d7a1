"""Asks a TorchScript file with PyTorch alone: python torchscript.py model.torchscript image.png

Export it with: python -m kd_lightning.export RUN --format torchscript --with-preprocessing
"""

import json
import sys

import numpy as np
import torch
from PIL import Image

extra = {"kd_lightning": ""}
model = torch.jit.load(sys.argv[1], _extra_files=extra)
about = json.loads(extra["kd_lightning"])
size = about["image_size"]
pixels = np.array(Image.open(sys.argv[2]).convert("RGB").resize((size, size)))
with torch.inference_mode():
    probabilities = model(torch.from_numpy(pixels)[None]).softmax(1)[0]
print(about["classes"][int(probabilities.argmax())], f"{float(probabilities.max()):.1%}")
