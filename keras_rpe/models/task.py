"""What all task models share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras

from keras_rpe.checkpoints import ConversionReport
from keras_rpe.models.presets import PresetError, load_preset, preset_folder, save_preset

Tensor = Any


def compiled_function(
    function: Callable[..., dict[str, Tensor]], shapes: Sequence[tuple[int | None, ...]]
) -> Callable[..., dict[str, Tensor]]:
    """Compile a function of float32 tensors, with one trace for all sizes.

    Args:
        function: The function.
        shapes: The shape of each argument, `None` where it varies.

    Returns:
        A `tf.function` on TensorFlow; the function itself on other backends.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.task import compiled_function
        >>> double = compiled_function(lambda x: {"twice": x * 2}, [(None, None)])
        >>> float(double(np.ones((1, 1), "float32"))["twice"][0, 0])
        2.0
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, "float32") for shape in shapes]
    # Loops are ops of the graph already: there is no Python control flow to convert.
    return tf.function(function, input_signature=signature, autograph=False)


def transfer_weights(source: keras.Model, target: keras.Model) -> ConversionReport:
    """Give a model the weights of another where their shapes agree.

    Args:
        source: A model whose weights are trained.
        target: A model, of which another number of classes, another embedding or another backbone
            is asked.

    Returns:
        What was matched, what of the target keeps its initial values, and what of the source is
        not used.

    Example:
        >>> import keras
        >>> from keras_rpe.models.task import transfer_weights
        >>> def network(classes):
        ...     inputs = keras.Input((4,))
        ...     x = keras.layers.Dense(3, name="body")(inputs)
        ...     return keras.Model(inputs, keras.layers.Dense(classes, name="head")(x))
        >>> print(transfer_weights(network(2), network(5)))
        2 weights matched, 2 left as they were, 2 arrays of the checkpoint unused
          matched    body/kernel (4, 3) <- body/kernel
          matched    body/bias (3,) <- body/bias
          unchanged  head/kernel (3, 5)
          unchanged  head/bias (5,)
          unused     head/kernel (3, 2)
          unused     head/bias (2,)
    """
    report = ConversionReport()
    # Automatic names count on from model to model, so paths are no guide where the order is.
    same = [v.name for v in source.variables] == [v.name for v in target.variables]
    left = _by_order(source) if same else _by_path(source)
    for key, variable in (_by_order(target) if same else _by_path(target)).items():
        shape = tuple(variable.shape)
        found = left.get(key)
        if found is None or tuple(found.shape) != shape:
            report.unmatched_weights.append((variable.path, shape))
            continue
        variable.assign(found.value)
        report.matched.append((variable.path, found.path, shape))
        del left[key]
    report.unmatched_arrays += [(v.path, tuple(v.shape)) for v in left.values()]
    return report


def _by_order(model: keras.Model) -> dict[str, keras.Variable]:
    return {str(index): variable for index, variable in enumerate(model.variables)}


def _by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables by their paths, counted where several have the same."""
    keyed: dict[str, keras.Variable] = {}
    for variable in model.variables:
        key, count = variable.path, 0
        while key in keyed:
            count += 1
            key = f"{variable.path}#{count}"
        keyed[key] = variable
    return keyed


_NAMED = 6  # Weights that a warning names; the report has all.


class Task(keras.Model):
    """Base of the task models: a functional Keras model that presets can save and make again.

    Attributes:
        serve: Method of each task that takes images, float32 `(batch, H, W, C)`, inside the graph
            and gives tensors by the names in `served_maps`, `served_stacks` and `served_tables`:
            what exported models compute.
        source: The preset or file that it was loaded from, or `None`; exported models carry it.
        weight_report: What `from_preset` could keep of the weights of a preset that it was asked to
            change, or `None`.
        served_maps: Outputs of `serve` that are as large as the image, `(batch, H, W)`, and their
            data types.
        served_stacks: Outputs that are several such maps, `(batch, H, W, n)`.
        served_tables: Its other outputs, and their data types.
    """

    serve: Callable[[Any], dict[str, Any]]
    served_maps: ClassVar[dict[str, str]]
    served_stacks: ClassVar[dict[str, str]] = {}
    served_tables: ClassVar[dict[str, str]]
    source: str | None = None
    weight_report: ConversionReport | None = None

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike[str],
        load_weights: bool = True,
        trusted_packages: Sequence[str] = (),
        **overrides: Any,
    ) -> Self:
        """Make a model from a preset.

        With overrides, such as another `num_classes` or `embedding_dim`, every weight whose shape
        still fits is kept; a warning names the others, and `weight_report` lists all.

        Args:
            preset: The name of a bundled preset, a folder that `save_to_preset` wrote,
                `hf://USER/REPO`, `kaggle://USER/MODEL/FRAMEWORK/VARIATION`, or
                `https://….zip#sha256=…`. What is downloaded is kept and checked.
            load_weights: Whether to load the weights, or leave them random.
            trusted_packages: Packages other than keras and keras_rpe whose classes the preset may
                name, such as "keras_hub".
            **overrides: Arguments of the constructor, in place of those of the preset.

        Returns:
            The model, ready to predict; call `compile` to train it further.

        Raises:
            PresetError: A ValueError, if there is no such preset, it cannot be downloaded, a file
                of it is damaged or refused, or it is a model of another task.
            TypeError: If an override is no argument of the constructor.
            ImportError: If the handle needs an extra that is not installed.

        Example:
            >>> import warnings
            >>> from keras_rpe.models import InstanceSegmenter
            >>> with warnings.catch_warnings(record=True):
            ...     model = InstanceSegmenter.from_preset("nuclei", num_classes=3)
            >>> model.weight_report.summary()
            '70 weights matched, 2 left as they were, 2 arrays of the checkpoint unused'
        """
        model = load_preset(preset_folder(preset), load_weights, trusted_packages)
        if not isinstance(model, cls):
            raise PresetError(
                f"`preset` must be that of a {cls.__name__}. "
                f"Received: preset={str(preset)!r}, a {type(model).__name__}"
            )
        if overrides:
            model = _remade(model, overrides, transfer=load_weights)
        model.source = str(preset)
        return model

    def save_to_preset(
        self, folder: str | os.PathLike[str], notes: dict[str, Any] | None = None
    ) -> None:
        """Write the configuration, the weights and a model card into a folder for `from_preset`.

        Args:
            folder: The folder, made if it is missing; a card that someone wrote is kept.
            notes: Further entries of its `metadata.json`, such as figures of an evaluation; see
                `keras_rpe.models.presets.model_card` for those that come into the card.

        Raises:
            TypeError: If the notes cannot be written as JSON.
            OSError: If the folder cannot be written.
        """
        save_preset(self, folder, notes)

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        quantize: str | None = None,
        representative_data: Iterable[Any] | None = None,
        max_pixels: int | None = None,
    ) -> Path:
        """Write a model for serving whose graph takes pixels and gives what `serve` gives.

        Pre-processing, padding to the stride of the network, grouping and decoding are in it;
        batch, height and width stay dynamic.

        Args:
            filepath: For a SavedModel the folder `…/NAME`, whose next version `…/NAME/1`, …, is
                written, or a version that does not exist yet; otherwise a file, `….tflite` or
                `….onnx`.
            format: "tf_saved_model" (see `keras_rpe.export.export_saved_model`), "litert"
                (`export_litert`) or "onnx" (`export_onnx`).
            quantize: For "litert": `None`, "float16", "dynamic" or "int8".
            representative_data: For "int8": some images like those to come.
            max_pixels: For "tf_saved_model": most pixels of a request, 2048 · 2048 by default.

        Returns:
            The version's folder, or the file.

        Raises:
            ValueError: If an argument is none of these or does not go with the format.
            ImportError: If the format needs an extra that is not installed.
            RuntimeError: If Keras runs on another backend than TensorFlow.
            OSError: If it cannot be written.

        Example:
            >>> import tempfile
            >>> from keras_rpe.models import InstanceSegmenter
            >>> model = InstanceSegmenter.from_preset("nuclei")
            >>> path = model.export(tempfile.mkdtemp() + "/nuclei.tflite", format="litert")
            >>> path.name
            'nuclei.tflite'
        """
        from keras_rpe import export
        from keras_rpe.arguments import check_choice

        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "Models are exported on the TensorFlow backend: save this one as .keras, and load "
                "it with KERAS_BACKEND=tensorflow. "
                f"Received: backend={keras.backend.backend()!r}"
            )
        check_choice("format", format, ("tf_saved_model", "litert", "onnx"))
        if format != "litert" and (quantize is not None or representative_data is not None):
            raise ValueError(
                "`quantize` and `representative_data` go with format='litert'. "
                f"Received: format={format!r}, quantize={quantize!r}"
            )
        if format != "tf_saved_model" and max_pixels is not None:
            raise ValueError(
                "`max_pixels` goes with format='tf_saved_model'. "
                f"Received: format={format!r}, max_pixels={max_pixels!r}"
            )
        if format == "litert":
            return export.export_litert(self, filepath, quantize, representative_data)
        if format == "onnx":
            return export.export_onnx(self, filepath)
        limit = {} if max_pixels is None else {"max_pixels": max_pixels}
        return export.export_saved_model(self, filepath, **limit)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was; Keras calls this when it loads one."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if getattr(self, "optimizer", None) is not None and self.built:
            self.optimizer.build(self.trainable_variables)


def _remade(model: Any, overrides: dict[str, Any], transfer: bool) -> Any:
    """The model made with other arguments, and what fits of its weights."""
    config = model.get_config()
    unknown = sorted(overrides.keys() - config.keys())
    if unknown:
        raise TypeError(
            f"`{unknown[0]}` is no argument of {type(model).__name__}, which takes "
            f"{', '.join(config)}."
        )
    remade = type(model).from_config({**config, **overrides})
    if transfer:
        report = remade.weight_report = transfer_weights(model, remade)
        if report.unmatched_weights:
            names = [f"{name} {shape}" for name, shape in report.unmatched_weights[:_NAMED]]
            more = len(report.unmatched_weights) - len(names)
            warnings.warn(
                f"Re-initialised, as the preset has no weights of these shapes: {', '.join(names)}"
                + (f" and {more} more." if more else "."),
                UserWarning,
                stacklevel=3,
            )
    return remade
