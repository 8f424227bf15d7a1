"""ONNX files, written by torch.onnx and run by onnxruntime; a quantized student as QDQ with int8 weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_lightning.deploy.files.card import OUTPUT, dump, dynamic_shapes, input_name, output_names
from kd_lightning.deploy.files.recurrent import any_length
from kd_lightning.runs.students import KEY
from kd_lightning.types import StudentCard
from kd_lightning.utils.seal import seal

NEEDS = ("onnx", "onnxscript", "onnxruntime")


def write(network: nn.Module, card: StudentCard, example: Any, path: Path) -> None:
    """Write a network.

    Args:
        network: Takes and gives what `card` says.
        card: Goes into the file's metadata.
        example: Inputs of the network.
        path: The file.

    Raises:
        Exception: Whatever torch.onnx raises about an operation that it cannot export.
    """
    shapes = dynamic_shapes(card, example)
    with torch.no_grad(), any_length():
        program: Any = torch.onnx.export(
            network,
            (example, {}),  # torch.onnx takes a dictionary at the end for keyword arguments
            dynamo=True,
            dynamic_shapes=None if shapes is None else (shapes,),
            input_names=list(example) if isinstance(example, Mapping) else [input_name(card)],
            output_names=output_names(card),
            custom_translation_table=_translations(),
            verbose=False,
        )
    for node in program.model.graph:
        node.metadata_props.clear()  # the stack trace of each node: half of a small file
    program.model.metadata_props.clear()
    program.model.metadata_props[KEY] = dump(card)
    program.save(str(path))
    seal(path)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    from onnxscript import opset20 as op

    from kd_lightning.deploy.quantization import integer_graph  # noqa: F401 - defines the operators

    def quantize(x: Any, scale: Any, zero_point: Any) -> Any:
        return op.QuantizeLinear(x, scale, zero_point)

    def dequantize(q: Any, scale: Any, zero_point: Any) -> Any:
        return op.DequantizeLinear(q, scale, zero_point, axis=0)

    ours = torch.ops.kd_lightning
    return {ours.quantize.default: quantize, ours.dequantize.default: dequantize}


def session(path: Path, threads: int = 0) -> Any:
    """Return an onnxruntime session on the CPU with so many threads; 0 for PyTorch's number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def read(path: Path) -> tuple[str, Callable[[Any], Any]]:
    """Return the file's metadata, and a function from inputs to logits, by task if there are several."""
    running = session(path)
    names = [one.name for one in running.get_inputs()]
    outputs = [one.name for one in running.get_outputs()]

    def answer(x: Any) -> Any:
        feed = x if isinstance(x, Mapping) else {names[0]: x}
        found = running.run(None, {name: t.contiguous().numpy() for name, t in feed.items()})
        if outputs == [OUTPUT]:
            return torch.from_numpy(found[0])
        return {n.removeprefix(f"{OUTPUT}_"): torch.from_numpy(z) for n, z in zip(outputs, found, strict=True)}

    return running.get_modelmeta().custom_metadata_map.get(KEY, ""), answer
