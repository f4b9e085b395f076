"""Predict requests and replies of TensorFlow Serving's REST protocol, in JSON."""

import base64
import binascii
import json

import numpy as np
import orjson
import tensorflow as tf
from served_signatures import DEFAULT, RequestError, ServedModel


def answer(model: ServedModel, body: bytes) -> bytes:
    """Answer the body of a predict request.

    Args:
        model: The model.
        body: JSON: `instances`, a list with one entry for each image (row format), or `inputs`,
            whole tensors (column format); `signature_name` if it is not
            `serving_default`.

    Returns:
        JSON: `predictions`, a list of objects, or `outputs`, an object of whole tensors.

    Raises:
        RequestError: If the body is not such a request, or the model refuses its contents.
    """
    request = _parse(body)
    signature = request.get("signature_name", DEFAULT)
    if not isinstance(signature, str):
        raise RequestError(f"`signature_name` must be a string. Received: {signature!r}")
    by_row = "instances" in request
    if by_row == ("inputs" in request):
        raise RequestError(
            "The body must hold either `instances` or `inputs`. "
            f"Received: {', '.join(sorted(request)) or 'nothing'}"
        )
    infos = model.inputs_of(signature)
    columns = (
        _columns(request["instances"], list(infos))
        if by_row
        else _named(request["inputs"], list(infos))
    )
    inputs = {
        name: _array(name, value, infos[name]) if name in infos else np.zeros(0)
        for name, value in columns.items()
    }
    outputs = model.run(signature, inputs)
    reply = {"predictions": _rows(outputs)} if by_row else {"outputs": _only(outputs)}
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def _parse(body: bytes) -> dict:
    try:
        request = orjson.loads(body)
    except ValueError:
        try:
            # This is slower, but accepts NaN and Infinity, as TensorFlow Serving does.
            request = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"The body must be JSON. Received: {error}") from None
    if not isinstance(request, dict):
        raise RequestError(f"The body must be a JSON object. Received: {type(request).__name__}")
    return request


def _columns(instances: object, names: list[str]) -> dict[str, object]:
    """Turn one value or object for each instance into one list for each input."""
    if not isinstance(instances, list) or not instances:
        raise RequestError("`instances` must be a list with at least one entry")
    rows = [_named(instance, names) for instance in instances]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise RequestError("All `instances` must have the same inputs")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _named(value: object, names: list[str]) -> dict[str, object]:
    """Values by name; if a signature has one input, its name may be missing."""
    if isinstance(value, dict) and value.keys() != {"b64"}:
        return value
    if len(names) != 1:
        raise RequestError(f"Each value must be an object of {', '.join(sorted(names))}")
    return {names[0]: value}


def _array(name: str, value: object, info: object) -> np.ndarray:
    """Nested lists as an array of the data type of an input; nothing is rounded or wrapped."""
    dtype = tf.as_dtype(info.dtype)
    ragged = RequestError(f"`{name}` must be nested lists of equal lengths. Received: ragged lists")
    try:
        if dtype == tf.string:
            array = np.array(_decoded(name, value), dtype=object)
            if not all(isinstance(entry, bytes) for entry in array.flat):
                raise ragged
            return array
        array = np.array(value)
    except (OverflowError, RecursionError):
        raise ragged from None
    except ValueError as error:
        raise error if isinstance(error, RequestError) else ragged from None
    if array.size == 0:
        raise RequestError(f"`{name}` must not be empty. Received: shape={array.shape}")
    kinds = "iu" if dtype.is_integer else "iuf"
    if array.dtype.kind not in kinds:
        received = {"f": "floats", "b": "booleans", "U": "strings"}.get(
            array.dtype.kind, "other values"
        )
        raise RequestError(f"`{name}` must hold {dtype.name} numbers. Received: {received}")
    if dtype.is_integer and not dtype.min <= array.min() <= array.max() <= dtype.max:
        raise RequestError(
            f"`{name}` must be {dtype.name}, {dtype.min} to {dtype.max}. "
            f"Received: values from {array.min()} to {array.max()}"
        )
    with np.errstate(over="ignore"):  # to infinity, which the graph refuses
        return array.astype(dtype.as_numpy_dtype)


def _decoded(name: str, value: object) -> object:
    if isinstance(value, list):
        return [_decoded(name, entry) for entry in value]
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(f"`{name}` must be base64. Received: {error}") from None
    received = type(value).__name__
    raise RequestError(f'`{name}` must be objects {{"b64": "…"}}. Received: {received}')


def _rows(outputs: dict[str, np.ndarray]) -> list:
    count = len(next(iter(outputs.values())))
    return [_only({name: value[k] for name, value in outputs.items()}) for k in range(count)]


def _only(outputs: dict) -> object:
    """If a signature has one output, return it without its name."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
