"""Ask an exported program with PyTorch alone: python exported_program.py model.pt2 image.png

Export it with: python -m kd_lightning.export RUN --format pt2 --with-preprocessing
"""

import json
import sys

import numpy as np
import torch
from PIL import Image, ImageOps

extra = {"kd_lightning": ""}
model = torch.export.load(sys.argv[1], extra_files=extra).module()
card = json.loads(extra["kd_lightning"])
size, margin = card["preprocessing"]["image_size"], card["preprocessing"]["margin"]
image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR, bleed=(1 - 1 / margin) / 2)
with torch.inference_mode():
    probabilities = model(torch.from_numpy(np.array(image))[None]).softmax(1)[0]
print(card["classes"][int(probabilities.argmax())], f"{float(probabilities.max()):.1%}")
