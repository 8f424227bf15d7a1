"""Asks an ONNX file with only onnxruntime, NumPy and Pillow: python onnxruntime_alone.py model.onnx image.png

Export it with: python -m kd_lightning.export RUN --format onnx --with-preprocessing
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["kd_lightning"])
size = about["image_size"]
image = Image.open(sys.argv[2]).convert("RGB").resize((size, size))
(logits,) = session.run(None, {"images": np.asarray(image)[None]})
probabilities = np.exp(logits[0] - logits[0].max())
probabilities /= probabilities.sum()
print(about["classes"][probabilities.argmax()], f"{probabilities.max():.1%}")
