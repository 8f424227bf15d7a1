"""Memory of a process that does nothing but answer one sample at a time."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kd_lightning.utils.trust import is_trusted

_PEAK = """
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
_ONNX = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
feed = dict(numpy.load(sys.argv[3]))
feed = {one.name: feed.get(one.name, feed.get("")) for one in session.get_inputs()}
for _ in range(5): session.run(None, feed)
"""
_TORCH = """
import sys, numpy, torch
form, path, inputs, trust = sys.argv[1:]
x = {name: torch.from_numpy(value) for name, value in numpy.load(inputs).items()}
x = x.get("", x)
if form == "pt2":
    model = torch.export.load(path).module()
else:
    from kd_lightning.deploy.files.torch_files import read_safetensors
    from kd_lightning.utils.trust import trusting
    from pathlib import Path
    with trusting(trust == "True"):
        _, model = read_safetensors(Path(path))
with torch.inference_mode():
    for _ in range(5): model(x)
"""


def peak_memory(runtime: str, path: Path, sample: Any) -> int | None:
    """Return the bytes that a fresh process holds at most while it loads a file and answers batches of one.

    Python and the runtime are included.

    Args:
        runtime: A format, or `eager` for safetensors.
        path: The file.
        sample: Inputs of one sample.

    Returns:
        None where the system does not tell.
    """
    if not sys.platform.startswith("linux"):
        return None
    arrays = {name: t.numpy() for name, t in (sample if isinstance(sample, Mapping) else {"": sample}).items()}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **arrays)
        script = _ONNX if runtime == "onnx" else _TORCH
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            script + _PEAK,
            runtime,
            str(path),
            str(inputs),
            str(is_trusted()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return 1024 * int(done.stdout) if done.returncode == 0 else None
