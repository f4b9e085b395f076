"""What all task models share."""

from __future__ import annotations

import inspect
import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from keras_rpe.arguments import check_choice
from keras_rpe.checkpoints import ConversionReport
from keras_rpe.losses import BoundaryCrossEntropy, CosineMarginLoss, ObjectSizeLoss
from keras_rpe.models.backbones import make_backbone
from keras_rpe.models.checks import LabelCheck
from keras_rpe.models.presets import PresetError, load_preset, preset_folder, save_preset
from keras_rpe.results import rgb_array

Tensor = Any


def compiled_function(
    model: keras.Model,
    function: Callable[..., dict[str, Tensor]],
    shapes: Sequence[tuple[int | None, ...]],
) -> Callable[..., dict[str, Tensor]]:
    """Compile a function of float32 tensors that uses a model.

    TensorFlow traces it once for all sizes: `shapes` are those of its arguments, `None` where they
    vary. JAX compiles it for every size anew; PyTorch runs the function as it is.
    """
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def stateless(values: list[Tensor], *arguments: Tensor) -> dict[str, Tensor]:
            with keras.StatelessScope(state_mapping=list(zip(model.variables, values))):
                return function(*arguments)

        return lambda *arguments: stateless(
            [variable.value for variable in model.variables],
            *(np.asarray(ops.convert_to_numpy(x), "float32") for x in arguments),
        )
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, "float32") for shape in shapes]
    # Loops are ops of the graph already: there is no Python control flow to convert.
    return tf.function(function, input_signature=signature, autograph=False)


def network(backbone: str | keras.Model, weights: str | None) -> keras.Model:
    """The network that a task was given, or one made by name."""
    return make_backbone(backbone, weights) if isinstance(backbone, str) else backbone


def lateral_initializer(weights: str | None) -> str:
    """That of the fusion: fine features of a trained network may be large, so they begin at 0."""
    return "glorot_uniform" if weights is None else "zeros"


def precise_dtype() -> str:
    """The global dtype policy, or float32 where that computes in 16 bits."""
    policy = keras.config.dtype_policy()
    return "float32" if policy.compute_dtype in ("float16", "bfloat16") else str(policy.name)


class _Function(keras.Operation):
    """A function as one operation of a functional graph."""

    def __init__(self, function: Callable[..., Tensor], name: str) -> None:
        super().__init__(name=name)
        self.function = function

    def call(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def named(name: str, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Apply a function to symbolic tensors under a name, which `summary` and errors then show."""
    return _Function(function, name)(*inputs)


def label_map(labels: Any, images: Tensor) -> Tensor:
    """Labels `(batch, H, W)` or `(batch, H, W, 1)` of images `(batch, H, W, …)` as the former.

    Raises:
        ValueError: If they have another shape.
    """
    labels = ops.convert_to_tensor(labels)
    if getattr(labels.shape, "rank", 0) is None:  # A step that was traced for maps of both shapes.
        return ops.reshape(labels, ops.shape(images)[:3])
    if len(labels.shape) == 4 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, -1)
    sizes = zip(labels.shape[1:3], images.shape[1:3])
    if len(labels.shape) != 3 or any(None not in pair and len({*pair}) > 1 for pair in sizes):
        raise ValueError(
            "The labels must be maps of shape (batch, H, W) or (batch, H, W, 1), as large as the "
            f"images. Received: labels of shape {tuple(labels.shape)} for images of height and "
            f"width {tuple(images.shape[1:3])}"
        )
    return labels


def transfer_weights(source: keras.Model, target: keras.Model) -> ConversionReport:
    """Give a model the weights of another where their shapes agree.

    Returns what was matched, what of `target` keeps its initial values, and what of `source` is not
    used.
    """
    report = ConversionReport()
    # Automatic names differ from model to model, so the order is the better guide where it agrees.
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


_LOSSES_OF_IMAGES = (CosineMarginLoss, BoundaryCrossEntropy, ObjectSizeLoss)
_NAMED = 6  # Weights that a warning names; the report has all.


class Task(keras.Model):
    """Base of the task models: a functional Keras model that presets can save and make again.

    A subclass builds its graph in its constructor, and defines `serve`, what the outputs are
    compared with (`_targets`), and the losses of `compile(loss="auto")` (`_auto_losses`).
    Prediction, training, export and the configuration follow from these.

    Attributes:
        backbone: The network from images to features.
        source: The preset or file that it was loaded from, or `None`; exported models carry it.
        weight_report: What `from_preset` could keep of the weights of a preset that it was asked to
            change, or `None`.
        served_maps: Outputs of `serve` that are as large as the image, `(batch, H, W)`, and their
            data types.
        served_stacks: Outputs that are several such maps, `(batch, H, W, n)`.
        served_tables: Its other outputs, and their data types.
        takes_diameter: Whether `serve` takes the diameter of the objects as well.
    """

    backbone: keras.Model
    source: str | None = None
    weight_report: ConversionReport | None = None
    served_maps: ClassVar[dict[str, str]]
    served_stacks: ClassVar[dict[str, str]] = {}
    served_tables: ClassVar[dict[str, str]] = {}
    takes_diameter = False
    _arguments: Mapping[str, Any]
    train_function: Any
    jit_compile: Any
    _compiled_serve: Mapping[Any, Callable[[np.ndarray], dict[str, Tensor]]] = MappingProxyType({})
    _checks: Sequence[LabelCheck] = ()
    _loss_of: Mapping[str, Any] = MappingProxyType({})

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments of the constructor, of which `get_config` is made."""
        task = super().__new__(cls, *args, **kwargs)
        # Keras calls this once more, without arguments, for each class.
        bound = inspect.signature(cls.__init__).bind_partial(task, *args, **kwargs)
        bound.apply_defaults()
        _, *arguments = bound.arguments.items()
        # Keras would track a dictionary, and the layers in it.
        task._arguments = MappingProxyType(_flat(bound.signature, dict(arguments)))
        return task

    @abstractmethod
    def serve(self, images: Tensor) -> dict[str, Tensor]:
        """Find in images what the task is about, inside the graph.

        This is what `predict` and exported models compute.

        Args:
            images: `(batch, H, W, C)`, floats of the value range that the model takes.

        Returns:
            Tensors by the names in `served_maps`, `served_stacks` and `served_tables`.
        """

    def predict_step(self, *state_and_data: Any) -> Any:
        """Give what `serve` does for one batch of `predict`."""
        *state, data = state_and_data
        images = data[0] if isinstance(data, (tuple, list)) else data
        if not state:
            return self.serve(images)
        # JAX hands over the values of the variables, and wants those back that may change.
        ((trainable, others),) = state
        variables = (*self.trainable_variables, *self.non_trainable_variables)
        with keras.StatelessScope(state_mapping=list(zip(variables, (*trainable, *others)))):
            return self.serve(images), others

    def _serve_one(self, image: Any, *numbers: float, **options: Any) -> dict[str, np.ndarray]:
        """Run `serve` on one image of any kind, and numbers."""
        return self._run_one(self.serve, image, *numbers, **options)

    def _run_one(
        self,
        function: Callable[..., dict[str, Tensor]],
        image: Any,
        *numbers: float,
        channels: int = 3,
        **options: Any,
    ) -> dict[str, np.ndarray]:
        """Run a function of a batch of images on one, compiled once for all sizes."""
        key = (function.__name__, len(numbers), channels, *options.items())
        if key not in self._compiled_serve:
            shapes = [(None, None, None, channels), *[()] * len(numbers)]
            new = {key: compiled_function(self, partial(function, **options), shapes)}
            # A plain dictionary would be tracked by Keras.
            self._compiled_serve = MappingProxyType({**self._compiled_serve, **new})
        scalars = map(np.float32, numbers)
        result = self._compiled_serve[key](rgb_array(image)[None, ..., :channels], *scalars)
        return {name: np.asarray(ops.convert_to_numpy(value)) for name, value in result.items()}

    def compile(
        self, optimizer: Any = "adam", loss: Any = "auto", loss_weights: Any = None, **kwargs: Any
    ) -> None:
        """Configure training.

        Args:
            optimizer: Name or optimizer.
            loss: "auto" for the losses that the docstring of the class names, or a dictionary of
                losses by the names of the outputs.
            loss_weights: Dictionary of a factor for each of these losses.
            **kwargs: Of `keras.Model.compile`; `metrics` and `weighted_metrics` are dictionaries
                by the names of the outputs, too.

        Raises:
            ValueError: If one of these is not such a dictionary.
        """
        if isinstance(loss, str) and loss == "auto":
            loss, weights = self._auto_losses()
            loss_weights = weights if loss_weights is None else loss_weights
        given = {"loss": loss, "loss_weights": loss_weights}
        given |= {key: kwargs.get(key) for key in ("metrics", "weighted_metrics")}
        for argument, value in given.items():
            if value is not None and not (isinstance(value, dict) and {*value} <= {*self.output}):
                auto = '"auto" or ' if argument == "loss" else ""
                raise ValueError(
                    f"`{argument}` must be {auto}a dictionary whose keys are outputs of the model, "
                    f"which are {', '.join(self.output)}. Received: {argument}={value!r}"
                )
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **kwargs)
        self._checks = self._label_checks(loss)
        self._loss_of = MappingProxyType(dict(loss or {}))  # Keras would track a dictionary.

    def make_train_function(self, force: bool = False) -> Any:
        """Make what `fit` calls at every step, with the checks of the labels after it."""
        made = self.train_function
        super().make_train_function(force)
        if self.train_function is not made:
            for check in self._checks:
                self.train_function = check.after(self.train_function)
        return self.train_function

    @abstractmethod
    def _auto_losses(self) -> tuple[dict[str, keras.losses.Loss], dict[str, float] | None]:
        """The losses of `compile(loss="auto")` and their weights."""

    def _learn_from(self, targets: dict[str, Tensor]) -> None:
        """Take from the targets of a training step what the losses do not teach."""

    @abstractmethod
    def _targets(self, y: Any, y_pred: dict[str, Tensor]) -> dict[str, Tensor]:
        """What each output is compared with."""

    def _label_checks(self, loss: Any) -> list[LabelCheck]:
        """The checks of the labels while a model trains that is compiled with these losses."""
        return []

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the sum of the losses of all outputs.

        Args:
            x: Images.
            y: The labels that the docstring of the class describes.
            y_pred: Outputs of the model.
            sample_weight: Weight of each image, `(batch,)`; or a dictionary of such weights, or of
                weights of another shape that the loss takes, by the names of the outputs.
            training: Whether in training.

        Raises:
            ValueError: If `sample_weight` is an array of another shape.
        """
        targets = self._targets(y, y_pred)
        if training:
            self._learn_from(targets)
            for check in self._checks:
                targets = check.observe(targets, y_pred)
        if sample_weight is not None and not isinstance(sample_weight, dict):
            sample_weight = dict.fromkeys(targets, sample_weight)
        if sample_weight is not None:
            sample_weight = {
                name: self._weight_of(name, one) for name, one in sample_weight.items()
            }
        return super().compute_loss(
            x=x, y=targets, y_pred=y_pred, sample_weight=sample_weight, training=training
        )

    def _weight_of(self, name: str, weight: Any) -> Any:
        """Weights of images as the loss of an output takes them."""
        rank = len(ops.shape(weight))
        per_image = isinstance(self._loss_of.get(name), _LOSSES_OF_IMAGES)
        if per_image and rank != 1:
            raise ValueError(
                "`sample_weight` must be one weight for each image, of shape (batch,). "
                f"Received: shape={tuple(weight.shape)} for {name}"
            )
        # Keras would spread them over the columns of the pixels.
        return ops.reshape(weight, (-1, 1, 1)) if rank == 1 and not per_image else weight

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Tensor]:
        """Update the metrics and return their values; arguments are those of `compute_loss`."""
        return super().compute_metrics(x, self._targets(y, y_pred), y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the model can be made again."""
        config = {}
        for name, argument in self._arguments.items():
            # Where an argument was left to the model, the attribute of its name has what it chose.
            value = argument if isinstance(argument, str) else getattr(self, name, argument)
            if isinstance(value, keras.layers.Layer):
                value = keras.saving.serialize_keras_object(value)
            config[name] = list(value) if isinstance(value, tuple) else value
        config.pop("backbone_weights", None)  # The weights are saved beside the configuration.
        return {**config, "name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Make a model from its configuration, with random weights."""
        deserialized = {
            name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            if isinstance(value, dict)
            else value
            for name, value in config.items()
        }
        return cls(**deserialized)

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
            **overrides: Arguments of the constructor, in place of those of the preset, or of its
                `InstanceDecoder`, such as `max_instances`.

        Returns:
            The model, ready to predict; call `compile` to train it further.

        Raises:
            PresetError: A ValueError, if there is no such preset, it cannot be downloaded, a file
                of it is damaged or refused, or it is a model of another task.
            TypeError: If an override is not an argument of the constructor.
            ImportError: If the handle needs an extra that is not installed.

        Example:
            >>> import warnings
            >>> from keras_rpe.models import InstanceSegmenter
            >>> with warnings.catch_warnings(record=True):
            ...     model = InstanceSegmenter.from_preset("nuclei", num_classes=3)
            >>> model.weight_report.summary()
            '75 weights matched, 2 left as they were, 2 arrays of the checkpoint unused'
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
                written, or a version that does not exist yet; otherwise a file, `….tflite`,
                `….onnx` or `….zip`.
            format: "tf_saved_model" (see `keras_rpe.export.export_saved_model`), "litert"
                (`export_litert`), "onnx" (`export_onnx`) or "bioimageio" (`export_bioimageio`).
            quantize: For "litert": `None`, "float16", "dynamic" or "int8".
            representative_data: For "int8", some images like those to come; for "bioimageio", one
                that becomes the test of the package.
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
            >>> from keras_rpe.models import SemanticSegmenter
            >>> model = SemanticSegmenter("unet_small", num_classes=2)
            >>> path = model.export(tempfile.mkdtemp() + "/classes.tflite", format="litert")
            >>> path.name
            'classes.tflite'
        """
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "Models are exported on the TensorFlow backend: save this one as .keras, and load "
                "it with KERAS_BACKEND=tensorflow. "
                f"Received: backend={keras.backend.backend()!r}"
            )
        from keras_rpe import export  # Only this part of the package needs TensorFlow.

        check_choice("format", format, ("tf_saved_model", "litert", "onnx", "bioimageio"))
        if format != "litert" and quantize is not None:
            raise ValueError(
                "`quantize` goes with format='litert'. "
                f"Received: format={format!r}, quantize={quantize!r}"
            )
        if format not in ("litert", "bioimageio") and representative_data is not None:
            raise ValueError(
                "`representative_data` goes with format='litert' and 'bioimageio'. "
                f"Received: format={format!r}"
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
        if format == "bioimageio":
            image = None if representative_data is None else next(iter(representative_data), None)
            return export.export_bioimageio(self, filepath, image)
        limit = {} if max_pixels is None else {"max_pixels": max_pixels}
        return export.export_saved_model(self, filepath, **limit)

    def with_dtype_policy(self, policy: str) -> Self:
        """Copy the model with another precision, not compiled.

        Weights are float32 under all of these policies, and so are embeddings, grouping and losses.

        Args:
            policy: "float32", "mixed_float16" or "mixed_bfloat16".

        Returns:
            The copy, with the same weights.

        Raises:
            ValueError: If the policy is another one.

        Example:
            >>> from keras_rpe.models import InstanceSegmenter
            >>> model = InstanceSegmenter("unet_small").with_dtype_policy("mixed_bfloat16")
            >>> model.backbone.layers[1].compute_dtype
            'bfloat16'
        """
        check_choice("policy", policy, ("float32", "mixed_float16", "mixed_bfloat16"))
        new = keras.saving.serialize_keras_object(keras.DTypePolicy(policy))

        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                is_policy = value.get("class_name") == "DTypePolicy"
                return new if is_policy else {key: changed(v) for key, v in value.items()}
            return [changed(v) for v in value] if isinstance(value, list) else value

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            config = self.get_config()
            copy = type(self).from_config({**config, "backbone": changed(config["backbone"])})
        finally:
            keras.config.set_dtype_policy(before)
        copy.set_weights(self.get_weights())
        copy.source = self.source
        return copy

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was; Keras calls this when it loads one."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if getattr(self, "optimizer", None) is not None and self.built:
            self.optimizer.build(self.trainable_variables)


def _flat(signature: inspect.Signature, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, those of `**kwargs` among the others."""
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return arguments


def _remade(model: Any, overrides: dict[str, Any], transfer: bool) -> Any:
    """The model made with other arguments, and what fits of its weights."""
    config = model.get_config()
    # Thresholds were tuned, so those that are not overridden stay.
    decoder = (config.get("decoder") or {}).get("config", {})
    thresholds = [name for name in decoder if name not in ("name", "trainable", "dtype")]
    unknown = sorted(overrides.keys() - config.keys() - {*thresholds})
    if unknown:
        raise TypeError(
            f"`{unknown[0]}` is not an argument of {type(model).__name__}, which takes "
            f"{', '.join([*config, *thresholds])}."
        )
    if "num_classes" in overrides:  # The names were those of the others.
        overrides = {"class_names": None, **overrides} if "class_names" in config else overrides
    decoder |= {name: overrides.pop(name) for name in thresholds if name in overrides}
    remade = type(model).from_config({**config, **overrides})
    if transfer:
        report = remade.weight_report = transfer_weights(model, remade)
        if report.unmatched_weights:
            names = [f"{name} {shape}" for name, shape in report.unmatched_weights[:_NAMED]]
            more = len(report.unmatched_weights) - len(names)
            warnings.warn(
                f"Re-initialized, as the preset has no weights of these shapes: {', '.join(names)}"
                + (f" and {more} more." if more else "."),
                UserWarning,
                stacklevel=3,
            )
    return remade
