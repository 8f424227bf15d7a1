"""Ask an ONNX file about a recording with only onnxruntime, SciPy and NumPy: python recording_alone.py model.onnx a.wav

Export it with: python -m kd_lightning.export RUN --format onnx --with-preprocessing
"""

import json
import sys

import numpy as np
import onnxruntime
from scipy.io import wavfile
from scipy.signal import resample_poly

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
card = json.loads(session.get_modelmeta().custom_metadata_map["kd_lightning"])
wanted = card["preprocessing"]["sample_rate"]
rate, wave = wavfile.read(sys.argv[2])
if wave.dtype.kind in "iu":  # whole numbers, those of 8 bits around 128
    zero = 128.0 if wave.dtype == np.uint8 else 0.0
    wave = (wave - zero) / (np.iinfo(wave.dtype).max + 1 - zero)
wave = resample_poly(wave.reshape(len(wave), -1).mean(1), wanted, rate)
length = session.get_inputs()[0].shape[1]
start = max(0, (len(wave) - length) // 2)
wave = wave[start : start + length]  # the middle
before = (length - len(wave)) // 2
wave = np.pad(wave, (before, length - len(wave) - before)).astype(np.float32)
(logits,) = session.run(None, {"waveform": wave[None]})
probabilities = np.exp(logits[0] - logits[0].max())
probabilities /= probabilities.sum()
print(card["classes"][probabilities.argmax()], f"{probabilities.max():.1%}")
