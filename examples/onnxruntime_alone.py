"""Ask an ONNX file with only onnxruntime, NumPy and Pillow: python onnxruntime_alone.py model.onnx image.png

Export it with: python -m kd_lightning.export RUN --format onnx --with-preprocessing
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
card = json.loads(session.get_modelmeta().custom_metadata_map["kd_lightning"])
size, margin = card["preprocessing"]["image_size"], card["preprocessing"]["margin"]
image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR, bleed=(1 - 1 / margin) / 2)
(logits,) = session.run(None, {"images": np.asarray(image)[None]})
probabilities = np.exp(logits[0] - logits[0].max())
probabilities /= probabilities.sum()
print(card["classes"][probabilities.argmax()], f"{probabilities.max():.1%}")
