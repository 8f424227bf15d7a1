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
# The shorter side becomes margin * size pixels, of which the middle is cut out, rounded as in the training.
short = round(margin * size)
wide, high = (int(short * (side / min(image.size))) for side in image.size)
left, top, x, y = round((wide - size) / 2), round((high - size) / 2), image.width / wide, image.height / high
box = left * x, top * y, min((left + size) * x, image.width), min((top + size) * y, image.height)
image = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box)
with torch.inference_mode():
    probabilities = model(torch.from_numpy(np.array(image))[None]).softmax(1)[0]
print(card["classes"][int(probabilities.argmax())], f"{float(probabilities.max()):.1%}")
