"""An ONNX model in fewer bits, by onnxruntime's own tools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from kinfold_bundle import session


def to_float16(path: Path) -> None:
    """Replace an ONNX model by one in float16; inputs and outputs keep their types."""
    import onnx
    from onnxruntime.transformers import float16

    onnx.save(float16.convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


def to_int8(path: Path, examples: np.ndarray) -> None:
    """Replace an ONNX model by a quantized one, with weights quantized channel by channel.

    Args:
        path: of the model.
        examples: that the ranges of activations are taken from, as the model takes them.
    """
    from onnxruntime import quantization

    name = session(path).get_inputs()[0].name

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.blocks = iter(np.array_split(examples, max(len(examples) // 16, 1)))

        def get_next(self) -> dict[str, Any] | None:
            block = next(self.blocks, None)
            return None if block is None else {name: block}

    ready, beside = (path.with_name(f"{path.stem}.{what}.onnx") for what in ("ready", "int8"))
    try:
        quantization.quant_pre_process(str(path), str(ready))
        quantization.quantize_static(
            str(ready), str(beside), Reader(), per_channel=True,
            quant_format=quantization.QuantFormat.QDQ,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
        )  # fmt: skip
        os.replace(beside, path)
    finally:
        for one in (ready, beside):
            one.unlink(missing_ok=True)
