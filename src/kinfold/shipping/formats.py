"""The formats that a model is written in: who writes each, and who runs it."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kinfold.encoders.pretrained import first_line
from kinfold_bundle import session

Embeds = Callable[[np.ndarray], np.ndarray]
Writes = Callable[[keras.Model, Path], None]


class Format(NamedTuple):
    """One format.

    Attributes:
        file: name of the file or folder in the bundle.
        backend: of Keras that writes it, whichever one the run was trained with.
        packages: that writing and checking it need besides, and what pip calls them.
        write: writes a model to a path.
        opened: what embeds examples by the written file.
        precisions: that it can be written in.
    """

    file: str
    backend: str
    packages: dict[str, str]
    write: Writes
    opened: Callable[[Path], Embeds]
    precisions: tuple[str, ...] = ("float32",)


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


def write(model: keras.Model, kind: str, path: Path) -> None:
    """Write a model in the format `kind`.

    Raises:
        ValueError: a layer of the model has no form there.
    """
    try:
        FORMATS[kind].write(model, path)
    except Exception as error:  # as many kinds as there are exporters
        raise ValueError(
            f"The model could not be written as {kind}: {first_line(error)} Another --format may "
            "have what it needs."
        ) from error


def _by_keras(kind: str, **more: Any) -> Writes:
    """Writes by `keras.Model.export`."""

    def write(model: keras.Model, path: Path) -> None:
        name, shape = model.input.name, (None, *model.input_shape[1:])
        given = keras.InputSpec(shape=shape, dtype=model.input.dtype, name=name)
        options = {key: value() for key, value in more.items()}
        model.export(str(path), format=kind, verbose=False, input_signature=[given], **options)

    return write


def _any_batch() -> Any:
    """Or a program of PyTorch takes one example alone."""
    import torch

    return ({0: torch.export.Dim("batch", min=1)},)


def _write_openvino(model: keras.Model, path: Path) -> None:
    """By way of ONNX, from which OpenVINO's own tool keeps the batch open."""
    import openvino

    beside = path.with_suffix(".onnx")
    try:
        FORMATS["onnx"].write(model, beside)
        openvino.save_model(openvino.convert_model(beside), path, compress_to_fp16=False)
    finally:
        beside.unlink(missing_ok=True)


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
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors take bfloat16 by themselves
    compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", exact)
    return lambda x: compiled(x)[0]


def _torch(path: Path) -> Embeds:
    import torch

    module: Any = torch.export.load(path).module()
    return lambda x: module(torch.from_numpy(x)).detach().numpy()


FORMATS = {
    "onnx": Format(
        "model.onnx", "torch", {"onnx": "onnx", "onnxscript": "onnxscript",
        "onnxruntime": "onnxruntime"}, _by_keras("onnx"), _onnx, ("float32", "int8"),
    ),
    "saved_model": Format(
        "saved_model", "tensorflow", {}, _by_keras("tf_saved_model"), _saved_model
    ),
    "litert": Format("model.tflite", "tensorflow", {}, _by_keras("litert"), _litert),
    "openvino": Format(
        "model.xml", "torch", {"openvino": "openvino", "onnx": "onnx", "onnxscript": "onnxscript"},
        _write_openvino, _openvino,
    ),
    "torch": Format(
        "model.pt2", "torch", {}, _by_keras("torch", dynamic_shapes=_any_batch), _torch
    ),
}  # fmt: skip
