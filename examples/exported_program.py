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
image = ImageOps.exif_transpose(Image.open(sys.argv[2]))
if image.mode[0] in "IF":
    sys.exit("this picture has more than 8 bits a channel; save it in 8 bits, or use kd_lightning.load")
if image.has_transparency_data:  # white shows through, as in the training
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
image = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR, bleed=(1 - 1 / margin) / 2)
with torch.inference_mode():
    probabilities = model(torch.from_numpy(np.array(image))[None]).softmax(1)[0]
print(card["classes"][int(probabilities.argmax())], f"{float(probabilities.max()):.1%}")
