"""One harness for every layer: what a Keras user may do with a layer is done with each of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

Inputs = np.ndarray | list[np.ndarray]


def _apply(layer: keras.layers.Layer, x: Any) -> Any:
    return layer(*x) if isinstance(x, (list, tuple)) else layer(x)


def run_layer_test(
    layer_class: type[keras.layers.Layer],
    config: dict[str, Any],
    inputs: Inputs,
    tmp_path: Path,
    *,
    apply: Callable[[keras.layers.Layer, Any], Any] = _apply,
    policies: tuple[str, ...] = ("mixed_float16", "mixed_bfloat16"),
    half_tolerance: float = 2e-2,
    trains: bool = True,
    litert: bool = True,
) -> None:
    """Run every check; `apply` says how the layer takes its inputs: several as so many arguments.

    The batch, height and width of the inputs are dynamic in every graph, and the result must
    stay that of the eager call on the given arrays.
    """
    keras.utils.set_random_seed(3)
    layer = layer_class(**config)
    expected = _numpy(apply(layer, _tensors(inputs)))

    _check_config(layer_class, config, layer)
    model = _model(layer, inputs, apply)
    _compare(model(_tensors(inputs)), expected, 1e-5, "symbolic")
    spec = keras.tree.flatten(model.output)
    for tensor, value in zip(spec, keras.tree.flatten(expected)):
        assert len(tensor.shape) == value.ndim, "symbolic rank"
        assert all(s in (None, n) for s, n in zip(tensor.shape, value.shape)), "symbolic shape"

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    _compare(loaded(_tensors(inputs)), expected, 1e-6, "saved and loaded")

    for policy in policies:
        half = layer_class(**{**config, "dtype": policy})
        apply(half, _tensors(inputs))
        half.set_weights(layer.get_weights())
        _compare(apply(half, _tensors(inputs)), expected, half_tolerance, policy)

    if keras.backend.backend() == "tensorflow":
        _check_xla(model, inputs, expected)
        _check_saved_model(model, inputs, expected, tmp_path)
        if litert:
            _check_litert(model, inputs, expected, tmp_path)
    if trains:
        _check_fit(layer_class, config, inputs, apply)


def litert_model(saved_model: Path) -> bytes:
    """Convert a SavedModel with builtin operators only."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter.convert()


def _check_config(
    layer_class: type[keras.layers.Layer], config: dict[str, Any], layer: keras.layers.Layer
) -> None:
    full = layer.get_config()
    for name, value in config.items():
        assert full[name] == value, f"get_config loses {name}"
    clone = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(clone) is layer_class
    assert clone.get_config() == full
    assert keras.saving.get_registered_name(layer_class) == f"keras_rpe>{layer_class.__name__}"


def _model(
    layer: keras.layers.Layer, inputs: Inputs, apply: Callable[[keras.layers.Layer, Any], Any]
) -> keras.Model:
    arrays = inputs if isinstance(inputs, list) else [inputs]
    symbolic = [
        keras.Input((*(None,) * (a.ndim - 2), a.shape[-1]), dtype=a.dtype.name)
        if a.ndim > 3 or (a.ndim == 3 and a.shape[-1] < 8)
        else keras.Input((None,) * (a.ndim - 1), dtype=a.dtype.name)
        for a in arrays
    ]
    x = symbolic if isinstance(inputs, list) else symbolic[0]
    return keras.Model(x, apply(layer, x))


def _check_xla(model: keras.Model, inputs: Inputs, expected: Any) -> None:
    import tensorflow as tf

    compiled = tf.function(lambda x: model(x), jit_compile=True)
    _compare(compiled(_tensors(inputs)), expected, 1e-4, "jit_compile=True")


def _check_saved_model(model: keras.Model, inputs: Inputs, expected: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    model.export(tmp_path / "saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    _compare(loaded.serve(_tensors(inputs)), expected, 1e-5, "SavedModel")


def _check_litert(model: keras.Model, inputs: Inputs, expected: Any, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = tmp_path / "model.tflite"
    path.write_bytes(litert_model(tmp_path / "saved_model"))
    runner = Interpreter(str(path)).get_signature_runner()
    names = [tensor.name for tensor in model.inputs]
    arrays = inputs if isinstance(inputs, list) else [inputs]
    result = runner(**dict(zip(names, arrays)))
    if not isinstance(expected, dict):
        result = list(result.values())
        expected = [expected]
        _compare(result, expected, 1e-4, "LiteRT")
    else:
        _compare({name: result[name] for name in expected}, expected, 1e-4, "LiteRT")


def _check_fit(
    layer_class: type[keras.layers.Layer],
    config: dict[str, Any],
    inputs: Inputs,
    apply: Callable[[keras.layers.Layer, Any], Any],
) -> None:
    """One step under XLA, with a trainable layer before, so that a gradient must pass through."""

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.scale = keras.layers.Dense(1, kernel_initializer="ones")
            self.layer = layer_class(**config)

        def call(self, x: Any) -> Any:
            first = x[0] if isinstance(x, (list, tuple)) else x
            first = first * keras.ops.mean(self.scale(keras.ops.ones_like(first)))
            return apply(self.layer, [first, *x[1:]] if isinstance(x, (list, tuple)) else first)

    net = Net()
    arrays = tuple(inputs) if isinstance(inputs, list) else inputs
    value = _numpy(net(_tensors(inputs)))
    net.compile("sgd", lambda y, y_pred: keras.ops.mean((y - y_pred) ** 2), jit_compile=True)
    target = np.zeros_like(value)
    loss = net.train_on_batch(arrays, target)
    assert np.isfinite(loss), "one-step fit"


def _tensors(inputs: Inputs) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)


def _numpy(outputs: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _compare(result: Any, expected: Any, tolerance: float, what: str) -> None:
    result = keras.tree.flatten(_numpy(result))
    expected = keras.tree.flatten(expected)
    assert len(result) == len(expected), what
    for a, b in zip(result, expected):
        assert a.shape == b.shape, f"{what}: shape {a.shape} in place of {b.shape}"
        np.testing.assert_allclose(
            a.astype("float64"), b.astype("float64"), atol=tolerance, err_msg=what
        )


def largest_tensor(graph: Any) -> int:
    """The most elements of a tensor of known shape in a graph of TensorFlow and in its loops."""
    graphs, largest = [graph], 0
    while graphs:
        current = graphs.pop()
        for op in current.get_operations():
            known = [output.shape for output in op.outputs if output.shape.is_fully_defined()]
            largest = max([largest, *(shape.num_elements() for shape in known)])
            if op.type in ("While", "StatelessWhile"):
                bodies = [op.get_attr(name).name for name in ("body", "cond")]
                graphs += [current._get_function(name).graph for name in bodies]
    return largest
