"""Export to ONNX, with the loops as `Loop` operators."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_rpe.export.litert import convert, signature_names
from keras_rpe.export.saved_model import IMAGE, RECORD_NAME, ExportRecord, Outputs, Signature
from keras_rpe.held_back_stderr import held_back_stderr
from keras_rpe.optional_import import optional_import
from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    from keras_rpe.models import Task

OPSET = 18  # the first with a scatter operator that keeps the largest value
_INT64 = 7
# Here inputs and outputs share one space of names, and `diameter` is an output.
_GIVEN = tf.TensorSpec((1,), tf.float32, name="given_diameter")


def export_onnx(model: Task, path: str | os.PathLike[str]) -> Path:
    """Write an ONNX model whose graph takes pixels and gives what the task finds.

    Its input is `image`, uint8 RGB `(batch, H, W, 3)`, any size from 8 pixels a side, its outputs
    are named like the tensors of `Task.serve`. Models that find the diameter of objects take
    `given_diameter` as well, float32 `(1,)` in pixels, which may be left out, or 0: then it is
    found. The graph does not check its input.

    Args:
        model: The model.
        path: The file, `….onnx`.

    Returns:
        The file.

    Raises:
        ValueError: If the file has another ending, or an operator cannot be converted.
        ImportError: If the extra `onnx` is not installed.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"`filepath` must end in .onnx. Received: filepath={str(path)!r}")
    onnx = optional_import("onnx", "onnx")
    convert_module = optional_import("tf2onnx.convert", "onnx")
    handlers: dict[str, tuple[Callable[..., Any], list[Any]]] = {
        "FloorDiv": (_floor_division, []),
        "FloorMod": (_floor_division, []),
        "UnsortedSegmentSum": (_scatter("add", 0), []),
        "UnsortedSegmentMax": (_scatter("max", np.iinfo(np.int32).min), []),
    }
    # By way of LiteRT, whose converter knows the shapes inside nested loops.
    content = convert({"serving_default": _signature(model)})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder, "model.tflite")
        file.write_bytes(content)
        with held_back_stderr(), _without_copies():
            graph, _ = convert_module.from_tflite(
                str(file), opset=OPSET, custom_op_handlers=handlers
            )
    _rename(graph.graph, signature_names(content))
    _forget_lost_shapes(graph.graph)
    if model.takes_diameter:  # An input with a value of its own may be left out.
        default = onnx.numpy_helper.from_array(np.zeros(_GIVEN.shape, "float32"), _GIVEN.name)
        graph.graph.initializer.append(default)
    entry = graph.metadata_props.add()
    entry.key, entry.value = RECORD_NAME, ExportRecord("onnx", None, model.source).to_json()
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"`model` cannot be converted to ONNX: {reason}") from error
    return write_file(path, graph.SerializeToString())


@contextmanager
def _without_copies() -> Iterator[None]:
    """Keep tf2onnx from copying the graph before each optimization, a third of its time."""
    name = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _signature(model: Task) -> Signature:
    def serve(image: tf.Tensor) -> Outputs:
        return model.serve(tf.cast(image, tf.float32))

    segmenter: Any = model  # One that takes a diameter.

    def serve_at(image: tf.Tensor, given_diameter: tf.Tensor) -> Outputs:
        image = tf.cast(image, tf.float32)
        found = segmenter.estimate_diameter(image)
        return segmenter.serve(image, tf.where(given_diameter > 0, given_diameter, found))

    return (serve_at, [IMAGE, _GIVEN]) if model.takes_diameter else (serve, [IMAGE])


def read_onnx_record(content: bytes) -> ExportRecord | None:
    """Read the record from the metadata of an .onnx file; `None` if it has none."""
    entries = optional_import("onnx", "onnx").load_model_from_string(content).metadata_props
    texts = [entry.value for entry in entries if entry.key == RECORD_NAME]
    return ExportRecord.from_json(texts[0]) if texts else None


def _scatter(reduction: str, identity: int) -> Callable[..., Any]:
    """The converter of a reduction over segments to a scatter.

    That of the library makes a table of segments times the points of the largest one, which does
    not fit in memory for labels of pixels.
    """

    def handler(context: Any, node: Any, name: str, args: Any) -> Any:
        import onnx

        def constant(value: int) -> str:
            label = context.make_const(f"{name}/constant_{value}", np.array([value], "int64"))
            return label.output[0]

        def make(operator: str, inputs: list[str], **attributes: Any) -> str:
            return context.make_node(operator, inputs, attr=attributes).output[0]

        data, segments, count = node.input
        count = make("Reshape", [make("Cast", [count], to=_INT64), constant(1)])
        shape = make("Concat", [count, make("Shape", [data], start=1)], axis=0)
        value = onnx.helper.make_tensor("value", context.get_dtype(data), [1], [identity])
        empty = make("ConstantOfShape", [shape], value=value)
        indices = make("Unsqueeze", [make("Cast", [segments], to=_INT64), constant(-1)])
        shapes, dtypes = node.output_shapes, node.output_dtypes
        context.remove_node(node.name)
        return context.make_node(
            "ScatterND",
            [empty, indices, data],
            attr={"reduction": reduction},
            name=node.name,
            outputs=node.output,
            shapes=shapes,
            dtypes=dtypes,
        )

    return handler


def _floor_division(context: Any, node: Any, name: str, args: Any) -> Any:
    """Convert a quotient or remainder that is rounded down; ONNX rounds quotients towards zero."""
    left, right = node.input
    result = {
        "name": node.name,
        "outputs": node.output,
        "shapes": [context.get_shape(node.output[0])],
        "dtypes": [context.get_dtype(node.output[0])],
    }
    context.remove_node(node.name)
    if node.type == "FloorMod":
        return context.make_node("Mod", [left, right], **result)
    # The remainder of ONNX has the sign of the divisor.
    remainder = context.make_node("Mod", [left, right]).output[0]
    whole = context.make_node("Sub", [left, remainder]).output[0]
    return context.make_node("Div", [whole, right], **result)


def _forget_lost_shapes(graph: Any) -> None:
    """Leave open, in the bodies of loops, the shapes that the converter states as scalar.

    It does so for whatever another loop returned, and the runtime refuses it.
    """
    for value in graph.value_info:
        if not value.type.tensor_type.shape.dim:
            value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for body in (entry.g for entry in node.attribute if entry.name == "body"):
            # The number of the iteration and the condition come first, and are scalars.
            for value in [*body.input[2:], *body.output[1:]]:
                if not value.type.tensor_type.shape.dim:
                    value.type.tensor_type.ClearField("shape")
            _forget_lost_shapes(body)


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Rename the inputs and outputs of a graph, wherever they are read or written."""
    for value in [*graph.input, *graph.output, *graph.value_info]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)
