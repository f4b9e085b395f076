"""What all task models share."""

from __future__ import annotations

import os
from typing import Any, Self

import keras

from keras_rpe.models.presets import load_preset, preset_folder, save_preset


class Task(keras.Model):
    """Base of the task models: a functional Keras model that presets can save and make again."""

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

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was; Keras calls this when it loads one."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if getattr(self, "optimizer", None) is not None and self.built:
            self.optimizer.build(self.trainable_variables)
