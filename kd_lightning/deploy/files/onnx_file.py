"""ONNX files, written by torch.onnx and run by onnxruntime; a quantized student as QDQ with int8 weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.deploy.files.about import INPUT, KEY, OUTPUT, dump
from kd_lightning.deploy.files.network import example

NEEDS = ("onnx", "onnxscript", "onnxruntime")


def write(network: nn.Module, about: dict[str, Any], path: Path) -> None:
    """Writes `network`, which takes and gives what `about` says. Raises whatever torch.onnx cannot do."""
    shapes = None if about["batch"] else {INPUT: {0: torch.export.Dim("batch")}}
    with torch.no_grad():
        program: Any = torch.onnx.export(
            network,
            (example(about, about["batch"] or 2),),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[INPUT],
            output_names=[OUTPUT],
            custom_translation_table=_translations(),
            verbose=False,
        )
    for node in program.model.graph:
        node.metadata_props.clear()  # the stack trace of each node: half of a small file
    program.model.metadata_props.clear()
    program.model.metadata_props[KEY] = dump(about)
    program.save(str(path))


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
    """An onnxruntime session on the CPU with so many threads; 0: PyTorch's number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def read(path: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Its metadata, and images to logits."""
    running = session(path)

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(running.run(None, {INPUT: images.contiguous().numpy()})[0])

    return running.get_modelmeta().custom_metadata_map.get(KEY, ""), answer
