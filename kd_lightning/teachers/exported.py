"""Exported files as networks: `.onnx`, run by onnxruntime, and `.pt2`, an exported program of torch.

They give logits only: no layer of them can be read, and nothing in them can be trained.
"""

import hashlib
import importlib.util
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from kd_lightning.data.module import DataModule
from kd_lightning.runs.students import KEY
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import checksum
from kd_lightning.utils.seal import is_broken
from kd_lightning.utils.trust import are_programs_trusted

NAME = "file"
"""`model.teacher` of such a teacher; the suffix of `model.teacher_weights` is enough."""
SUFFIXES = (".onnx", ".pt2")
PIXELS = "uint8 NHWC"  # input of a file of ours that normalizes by itself
DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}
Answer = Callable[[Any], Tensor]


class Exported(nn.Module):
    """A file as a frozen network, from the data's inputs to logits `[B, C]`.

    Args:
        path: The file.
        answer: The file in its runtime.
        sha256: Of the file: a cache of its answers is found by it.
        batch: Number of samples that it takes at once; None for any.
        program: The module that holds the weights, if torch runs it.
    """

    def __init__(
        self, path: Path, answer: Answer, sha256: str, batch: int | None, program: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.path, self.sha256, self.batch = path, sha256, batch
        self._answer = answer
        self.program = program
        self.prepare: Answer | None = None

    @torch.compiler.disable
    def forward(self, x: Any = None, /, **entries: Tensor) -> Tensor:
        """Return the logits of a tensor, or of a dictionary whose entries are keyword arguments."""
        given: Any = entries if x is None else x
        if self.prepare is not None:
            given = self.prepare(given)
        if self.batch is None:
            return self._answer(given)
        count = len(tree_leaves(given)[0])
        parts = [self._answer(_part(given, start, self.batch)) for start in range(0, count, self.batch)]
        return torch.cat(parts)[:count]

    def extra_repr(self) -> str:
        return f"sha256={self.sha256}"

    def train(self, mode: bool = True) -> "Exported":
        """Change nothing: a file is what it was when it was written, and an exported program refuses it."""
        self.training = mode
        return self

    def __deepcopy__(self, memo: Any) -> "Exported":
        return self  # a session cannot be copied, and no one changes it


def open_exported(path: Path, key: str) -> tuple[Exported, StudentCard | None]:
    """Return the network in a file, and its card if `kd_lightning.export` wrote it.

    Raises:
        UserError: If the file is missing or damaged, if its runtime is not installed, or if it is a program of unknown
            origin outside `trusting`.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{key}: {path} must be an exported file, {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{key}: {path} does not exist; give an exported file ({', '.join(SUFFIXES)})")
    if path.suffix == ".pt2" and not are_programs_trusted():
        raise UserError(
            f"{key}: {path} is a program, and torch.export.load may run code in it; nothing of it was run. If you "
            "trust its origin, allow it with --trust (train: trust=true, Python: trust=True), or use .onnx"
        )
    try:
        if is_broken(path):
            raise ValueError("its checksum is wrong")
        text, network = (_onnx if path.suffix == ".onnx" else _pt2)(path, weights_checksum(path))
        return network, StudentCard.from_dict(json.loads(text)) if text else None
    except UserError:
        raise
    except Exception as e:  # whatever the runtimes raise
        why = (str(e).strip() or type(e).__name__).splitlines()[0][:120]
        raise UserError(f"{key}: {path} is damaged or cannot be run here ({why})") from e


def weights_checksum(path: Path) -> str:
    """Return the SHA-256 of a teacher's file; of an `.onnx` file together with the files beside it that it names.

    torch.onnx.export writes the weights into such a file, and the same graph with other weights is another teacher.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    if path.suffix == ".onnx":
        for name in sorted(_files_beside(content)):
            if (path.parent / name).is_file():
                digest.update(checksum(path.parent / name).encode())
    return digest.hexdigest()


def _files_beside(onnx: bytes) -> set[str]:
    """Return the values of `location` in an ONNX file: names, relative to its folder, of files of tensors."""
    names = set()
    for found in re.finditer(rb"\n\x08location\x12([\x80-\xff]?)([\x00-\x7f])", onnx):  # a string and its length
        length = (found[1][0] & 127 if found[1] else 0) + (found[2][0] << (7 if found[1] else 0))
        names.add(onnx[found.end() : found.end() + length].decode(errors="replace"))
    return names


def as_data_wants(network: Exported, card: StudentCard | None, data: DataModule, key: str) -> None:
    """Let a file of ours that takes pixels be given the data's images. Raises UserError if it cannot."""
    if card is None or card.extra.get("input") != PIXELS:
        return
    try:
        data.raw_inputs(data.example(1))
    except UserError as e:
        raise UserError(f"{key}: {network.path} takes images: {e}") from e
    network.prepare = data.raw_inputs


def _onnx(path: Path, sha256: str) -> tuple[str, Exported]:
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(f"{path} needs onnxruntime: pip install 'kd_lightning[export]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    there = onnxruntime.get_available_providers()
    providers = [one for one in ("CUDAExecutionProvider", "CPUExecutionProvider") if one in there]
    # By its path: weights of more than 2 GB lie in files beside it.
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    inputs, outputs = session.get_inputs(), [one.name for one in session.get_outputs()]
    for one in inputs:
        if one.type not in DTYPES:
            raise UserError(f"{path} takes {one.name} as {one.type}; known are {', '.join(DTYPES)}")
    types = {one.name: DTYPES[one.type] for one in inputs}
    wanted = ["logits" if "logits" in outputs else outputs[0]]

    def answer(x: Any) -> Tensor:
        feed = x if isinstance(x, Mapping) else {inputs[0].name: x}
        device = tree_leaves(x)[0].device
        arrays = {name: tensor.to("cpu", types.get(name)).contiguous().numpy() for name, tensor in feed.items()}
        return torch.from_numpy(session.run(wanted, arrays)[0]).to(device)

    first = inputs[0].shape[0] if inputs[0].shape else None
    batch = first if isinstance(first, int) else None
    return session.get_modelmeta().custom_metadata_map.get(KEY, ""), Exported(path, answer, sha256, batch)


def _pt2(path: Path, sha256: str) -> tuple[str, Exported]:
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # torch would tell a damaged file in many lines
        if damaged := archive.testzip():
            raise ValueError(f"wrong checksum of {damaged}")
    extra = {KEY: ""}
    program = torch.export.load(io.BytesIO(content), extra_files=extra)
    names = set(program.graph_signature.user_inputs)
    first = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in names)
    size = first.meta["val"].shape[0]
    module = program.module()
    return extra[KEY], Exported(path, module, sha256, size if isinstance(size, int) else None, module)


def _part(x: Any, start: int, count: int) -> Any:
    """Return `count` samples from `start` on; the last one again where there are too few."""

    def part(tensor: Tensor) -> Tensor:
        some = tensor[start : start + count]
        missing = count - len(some)
        return torch.cat([some, some[-1:].expand(missing, *some.shape[1:])]) if missing else some

    return tree_map(part, x)
