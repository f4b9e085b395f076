"""What all task models share."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import keras

from keras_rpe.models.presets import load_preset, preset_folder, save_preset


class Task(keras.Model):
    """Base of the task models: a functional Keras model that presets can save and make again.

    Attributes:
        source: The preset or file that it was loaded from, or `None`; exported models carry it.
    """

    source: str | None = None

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], load_weights: bool = True) -> Self:
        """Make a model from a preset.

        Args:
            preset: The name of a bundled preset, or a folder that `save_to_preset` wrote.
            load_weights: Whether to load the weights, or leave them random.

        Returns:
            The model, ready to predict; call `compile` to train it further.

        Raises:
            ValueError: If there is no such preset, a file of it is damaged, or it is a model of
                another task.
        """
        model = load_preset(preset_folder(preset), load_weights)
        model.source = str(preset)
        if not isinstance(model, cls):
            raise ValueError(
                f"`preset` must be that of a {cls.__name__}. "
                f"Received: preset={str(preset)!r}, a {type(model).__name__}"
            )
        return model

    def save_to_preset(
        self, folder: str | os.PathLike[str], notes: dict[str, Any] | None = None
    ) -> None:
        """Write the configuration and the weights into a folder that `from_preset` takes.

        Args:
            folder: The folder, made if it is missing.
            notes: Further entries of its `metadata.json`, such as figures of an evaluation.

        Raises:
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
        """Write a model for serving whose graph takes pixels and gives instances.

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
        from keras_rpe.export import export_model

        return export_model(self, filepath, format, quantize, representative_data, max_pixels)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was; Keras calls this when it loads one."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if getattr(self, "optimizer", None) is not None and self.built:
            self.optimizer.build(self.trainable_variables)
