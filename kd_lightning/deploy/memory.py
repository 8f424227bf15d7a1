"""The memory of a process that does nothing but answer one image at a time."""

import subprocess
import sys
from pathlib import Path

_PEAK = """
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
_ONNX = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = session.get_inputs()[0]
x = numpy.zeros([1, *image.shape[1:]], numpy.float32)
for _ in range(5): session.run(None, {image.name: x})
"""
_TORCH = """
import sys, torch
form, path, size = sys.argv[1:]
x = torch.zeros(1, 3, int(size), int(size))
if form == "pt2":
    model = torch.export.load(path).module()
elif form == "torchscript":
    model = torch.jit.load(path)
else:
    from kd_lightning.deploy.files.torch_files import read_safetensors
    from pathlib import Path
    _, model = read_safetensors(Path(path))
with torch.inference_mode():
    for _ in range(5): model(x)
"""


def peak_memory(runtime: str, path: Path, image_size: int) -> int | None:
    """Bytes that a fresh process holds at most (Python and the runtime included) while it loads the file and answers
    batches of one; None where the system does not tell. `runtime` is a format, or "eager" for safetensors."""
    if not sys.platform.startswith("linux"):
        return None
    script, words = (_ONNX, [path]) if runtime == "onnx" else (_TORCH, [runtime, path, image_size])
    command = [sys.executable, "-W", "ignore", "-c", script + _PEAK, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return 1024 * int(done.stdout) if done.returncode == 0 else None
