"""Export of recurrent layers for sequences of any length."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

try:
    from torch.export._patches import register_lstm_while_loop_decomposition as _as_loop
except ImportError:  # an older PyTorch
    _as_loop: Any = nullcontext  # type: ignore[no-redef]


@contextmanager
def any_length() -> Iterator[None]:
    """Let `torch.export` trace an LSTM as a loop, not as so many steps as the example has.

    `torch.onnx` does so, too. But the operator remembers how it was traced first in a process, so that is forgotten.
    """
    remembered = torch.ops.aten.lstm.input._dispatch_cache
    remembered.clear()
    try:
        with _as_loop():
            yield
    finally:
        remembered.clear()
