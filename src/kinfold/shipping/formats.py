"""The formats that a model is written in: who writes each, and who runs it."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kinfold.encoders.pretrained import first_line
from kinfold.shipping import narrowing
from kinfold_bundle import session

Embeds = Callable[[np.ndarray], np.ndarray]
# Writes a model to a path; the examples are those that ranges of values are taken from.
Writes = Callable[[keras.Model, Path, np.ndarray], None]


class Format(NamedTuple):
    """One format.

    Attributes:
        file: name of the file or folder in the bundle.
        backend: of Keras that writes it, whichever one the run was trained with.
        packages: further packages that writing and checking need, with their names for pip.
        opened: opens the written file, to embed examples with it.
        precisions: those it can be written in, each with what writes it.
    """

    file: str
    backend: str
    packages: dict[str, str]
    opened: Callable[[Path], Embeds]
    precisions: dict[str, Writes]


def with_input(
    model: keras.Model, shape: tuple[int, ...], dtype: str, unit: bool = False
) -> keras.Model:
    """The model as it is shipped: of one input, [any batch, *shape].

    Args:
        model: of a run.
        shape: of an example.
        dtype: "uint8" for the pixels of an image; else "float32".
        unit: whether the model takes pixels from 0 to 1.
    """
    inputs = keras.Input(shape, dtype=dtype, name="examples")
    x = keras.layers.Rescaling(1 / 255 if unit else 1.0)(inputs) if dtype == "uint8" else inputs
    shipped = keras.Model(inputs, model(x, training=False))
    shipped(np.zeros((1, *shape), dtype))  # a model that was never called is not exported
    return shipped


def write(model: keras.Model, kind: str, precision: str, path: Path, examples: np.ndarray) -> None:
    """Write a model in the format `kind`.

    Args:
        model: from `with_input`.
        kind: one of `FORMATS`.
        precision: one of the format's.
        path: the file or folder to write.
        examples: as the model takes them; ranges of values are taken from them.

    Raises:
        ValueError: a layer of the model has no form there.
    """
    try:
        FORMATS[kind].precisions[precision](model, path, examples)
    except Exception as error:  # as many kinds as there are exporters
        raise ValueError(
            f"The model could not be written as {kind}: {first_line(error)} Another --format may "
            "have what it needs."
        ) from error


def _by_keras(kind: str, **more: Callable[[np.ndarray], Any]) -> Writes:
    """Writes by `keras.Model.export`, with more arguments that are made of the examples."""

    def write(model: keras.Model, path: Path, examples: np.ndarray) -> None:
        name, shape = model.input.name, (None, *model.input_shape[1:])
        given = keras.InputSpec(shape=shape, dtype=model.input.dtype, name=name)
        options = {key: value(examples) for key, value in more.items()}
        model.export(str(path), format=kind, verbose=False, input_signature=[given], **options)

    return write


def _any_batch(_: np.ndarray) -> Any:
    """Or a program of PyTorch takes one example alone."""
    import torch

    return ({0: torch.export.Dim("batch", min=1)},)


_float32_onnx = _by_keras("onnx")


def _float16_onnx(model: keras.Model, path: Path, examples: np.ndarray) -> None:
    _float32_onnx(model, path, examples)
    narrowing.to_float16(path)


def _int8_onnx(model: keras.Model, path: Path, examples: np.ndarray) -> None:
    _float32_onnx(model, path, examples)
    narrowing.to_int8(path, examples)


def _by_openvino(by_onnx: Writes, half: bool = False) -> Writes:
    """Writes by way of ONNX, from which OpenVINO's own tool keeps the batch open."""

    def write(model: keras.Model, path: Path, examples: np.ndarray) -> None:
        import openvino

        beside = path.with_suffix(".onnx")
        try:
            by_onnx(model, beside, examples)
            openvino.save_model(openvino.convert_model(beside), path, compress_to_fp16=half)
        finally:
            beside.unlink(missing_ok=True)

    return write


def _smaller(_: np.ndarray) -> Any:
    import tensorflow as tf

    return [tf.lite.Optimize.DEFAULT]


def _half(_: np.ndarray) -> Any:
    import tensorflow as tf

    return {"supported_types": [tf.float16]}


def _one_by_one(examples: np.ndarray) -> Any:
    return lambda: ([examples[i : i + 1]] for i in range(len(examples)))


def refusal(kind: str) -> str | None:
    """Why the format cannot be written here, in a sentence; None where it can."""
    form = FORMATS[kind]
    if keras.backend.backend() != form.backend:
        return f"{kind} is written by {form.backend}: add --backend {form.backend}."
    missing = [pip for name, pip in form.packages.items() if not importlib.util.find_spec(name)]
    return f"{kind} needs more packages: pip install {' '.join(missing)}" if missing else None


def _onnx(path: Path) -> Embeds:
    runs = session(path)
    name = runs.get_inputs()[0].name
    return lambda x: runs.run(None, {name: x})[0]


def _saved_model(path: Path) -> Embeds:
    import tensorflow as tf

    served = tf.saved_model.load(str(path))
    return lambda x: served.serve(tf.constant(x)).numpy()


def _litert(path: Path) -> Embeds:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a package of its own will take its place
        interpreter = tf.lite.Interpreter(model_path=str(path))

    def embeds(x: np.ndarray) -> np.ndarray:
        at = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(at, x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(at, x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return embeds


def _openvino(path: Path) -> Embeds:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors take bfloat16 by themselves
    compiled = _openvino_core().compile_model(path, "CPU", exact)
    return lambda x: compiled(x)[0]


@functools.cache
def _openvino_core() -> Any:
    """OpenVINO's runtime: one for the process, and for as long as it lives.

    Each takes the stack that signals are handled on, and gives back the one that it found. Of two,
    the first to go frees the stack that the second then gives back: the next signal ends the
    process. PyTorch's loader sets such a handler for the end of a child.
    """
    import openvino

    return openvino.Core()


def _torch(path: Path) -> Embeds:
    import torch

    module: Any = torch.export.load(path).module()
    return lambda x: module(torch.from_numpy(x)).detach().numpy()


_ONNX = {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}

FORMATS = {
    "onnx": Format(
        "model.onnx",
        "torch",
        _ONNX,
        _onnx,
        {"float32": _float32_onnx, "float16": _float16_onnx, "int8": _int8_onnx},
    ),
    "saved_model": Format(
        "saved_model", "tensorflow", {}, _saved_model, {"float32": _by_keras("tf_saved_model")}
    ),
    "litert": Format(
        "model.tflite",
        "tensorflow",
        {},
        _litert,
        {
            "float32": _by_keras("litert"),
            "float16": _by_keras("litert", optimizations=_smaller, target_spec=_half),
            "int8": _by_keras("litert", optimizations=_smaller, representative_dataset=_one_by_one),
        },
    ),
    "openvino": Format(
        "model.xml",
        "torch",
        {"openvino": "openvino", **_ONNX},
        _openvino,
        {
            "float32": _by_openvino(_float32_onnx),
            "float16": _by_openvino(_float32_onnx, half=True),
            "int8": _by_openvino(_int8_onnx),
        },
    ),
    "torch": Format(
        "model.pt2",
        "torch",
        {},
        _torch,
        {"float32": _by_keras("torch", dynamic_shapes=_any_batch)},
    ),
}
