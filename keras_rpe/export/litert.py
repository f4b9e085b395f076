"""LiteRT files of builtin operators only."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_rpe.arguments import check_choice
from keras_rpe.export.saved_model import (
    IMAGE,
    RECORD_NAME,
    ExportRecord,
    Outputs,
    Signature,
    write_signatures,
)
from keras_rpe.held_back_stderr import held_back_stderr
from keras_rpe.optional_import import optional_import
from keras_rpe.results import rgb_array
from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    from keras_rpe.models import Task


def export_litert(
    model: Task,
    path: str | os.PathLike[str],
    quantize: str | None = None,
    representative_data: Iterable[Any] | None = None,
) -> Path:
    """Write a LiteRT model whose graph takes pixels and gives what the task finds.

    Its signature `serving_default` is from `image`, uint8 RGB `(batch, H, W, 3)`, any size from 8
    pixels a side, to the tensors of `Task.serve`. That of models which find the diameter of objects
    is `diameter` as well, which takes it, float32 `(1,)` in pixels. The graph does not check its
    input.

    Args:
        model: The model.
        path: The file, `….tflite`.
        quantize: `None` for float32; "float16" weights, which the runtime widens; "dynamic", int8
            weights and float activations; "int8", weights and activations of the convolutions in
            int8, the grouping in float32.
        representative_data: For "int8": some images like those to come, each `(H, W)`, `(H, W, 3)`
            or `(H, W, 4)` and uint8; 8 to 100 are enough.

    Returns:
        The file.

    Raises:
        ValueError: If an argument is none of these, or the model needs an operator that LiteRT
            does not have.
        ImportError: If "int8" is asked for and the extra `litert` is not installed.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".tflite":
        raise ValueError(f"`filepath` must end in .tflite. Received: filepath={str(path)!r}")
    check_choice("quantize", quantize, (None, "float16", "dynamic", "int8"))
    if (quantize == "int8") != (representative_data is not None):
        raise ValueError(
            "`representative_data` must be given with quantize='int8', and only then. "
            f"Received: quantize={quantize!r}, representative_data="
            f"{'None' if representative_data is None else type(representative_data).__name__}"
        )
    # All that can be wrong is found before the work starts.
    samples = None if representative_data is None else _calibration_samples(representative_data)
    content = convert(_signatures(model), None if samples else quantize)
    content = _add_record(content, ExportRecord("litert", quantize, model.source))
    if samples:
        inputs = {"serving_default": samples}
        if model.takes_diameter:
            segmenter: Any = model
            estimates = [segmenter.predict_diameter(one["image"][0]) for one in samples]
            inputs["diameter"] = [
                {**one, "diameter": np.array([estimate], "float32")}
                for one, estimate in zip(samples, estimates)
            ]
        content = _quantize_convolutions(content, inputs)
    return write_file(path, content)


def _calibration_samples(images: Iterable[Any]) -> list[dict[str, np.ndarray]]:
    """The images as inputs of the graph."""
    optional_import("ai_edge_quantizer", "litert")
    samples = []
    for image in images:
        array = np.asarray(image)
        if array.dtype != np.uint8:
            raise ValueError(
                f"`representative_data` must hold uint8 images. Received: dtype={array.dtype}"
            )
        samples.append({"image": rgb_array(array).astype("uint8")[None]})
    if not samples:
        raise ValueError("`representative_data` must hold at least one image. Received: none")
    return samples


def _quantize_convolutions(
    content: bytes, samples: dict[str, list[dict[str, np.ndarray]]]
) -> bytes:
    """Quantize the weights and activations of all convolutions of a float32 file to int8.

    The rest, normalization and grouping, stays in float32: it has no weights, takes a small part
    of the file, and its kernel needs more than 8 bits. The samples are by signature.
    """
    quantizer = optional_import("ai_edge_quantizer.quantizer", "litert")
    qtyping = optional_import("ai_edge_quantizer.qtyping", "litert")
    config = qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False),
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
        ),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )
    names = qtyping.TFLOperationName
    quantizing = quantizer.Quantizer(bytearray(content))
    for operator in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.CONV_2D_TRANSPOSE):
        quantizing.update_quantization_recipe(regex=".*", operation_name=operator, op_config=config)
    # The library prints its progress, and the notes of the runtime.
    with contextlib.redirect_stdout(io.StringIO()), held_back_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranges = quantizing.calibrate(samples)
        return bytes(quantizing.quantize(ranges).quantized_model)


_DIAMETER = tf.TensorSpec((1,), tf.float32, name="diameter")


def _signatures(model: Task) -> dict[str, Signature]:
    def serve(image: tf.Tensor) -> Outputs:
        return model.serve(tf.cast(image, tf.float32))

    segmenter: Any = model  # One that takes a diameter.

    def serve_at(image: tf.Tensor, diameter: tf.Tensor) -> Outputs:
        return segmenter.serve(tf.cast(image, tf.float32), diameter)

    at = {"diameter": (serve_at, [IMAGE, _DIAMETER])} if model.takes_diameter else {}
    return {"serving_default": (serve, [IMAGE]), **at}


def convert(signatures: dict[str, Signature], quantize: str | None = None) -> bytes:
    """Convert functions with builtin operators only; the content of a .tflite file."""
    with tempfile.TemporaryDirectory() as folder:
        write_signatures(signatures, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[*signatures])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            # On an error the converter writes the whole graph, thousands of lines.
            with held_back_stderr(show_on_error=False):
                return converter.convert()
        except Exception as error:
            missing = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", str(error))))
            if missing:
                raise ValueError(
                    "`model` must need no operators but those of LiteRT. "
                    f"Received: a model with {', '.join(missing)}"
                ) from None
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"`model` cannot be converted to LiteRT: {reason}") from None


def _parsed(content: bytes) -> Any:
    from tensorflow.lite.tools import flatbuffer_utils

    return flatbuffer_utils.convert_bytearray_to_object(bytearray(content))


def _add_record(content: bytes, record: ExportRecord) -> bytes:
    """Put the record into the metadata of a .tflite file."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = _parsed(content)
    buffer = schema.BufferT()
    buffer.data = list(record.to_json().encode())
    entry = schema.MetadataT()
    entry.name, entry.buffer = RECORD_NAME.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def read_litert_record(content: bytes) -> ExportRecord | None:
    """Read the record from the metadata of a .tflite file; `None` if it has none."""
    model = _parsed(content)
    for entry in model.metadata or []:
        if entry.name == RECORD_NAME.encode():
            return ExportRecord.from_json(bytes(model.buffers[entry.buffer].data))
    return None


def signature_names(content: bytes) -> dict[str, str]:
    """The names in the signature of a .tflite file, by the names of the tensors in its graph."""
    model = _parsed(content)
    signature = model.signatureDefs[0]
    tensors = model.subgraphs[signature.subgraphIndex].tensors
    return {
        tensors[entry.tensorIndex].name.decode(): entry.name.decode()
        for entry in [*signature.inputs, *signature.outputs]
    }
