"""Pictures of training for TensorBoard."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from PIL import Image

from keras_rpe.arguments import check_choice, check_integer
from keras_rpe.results import rgb_array
from keras_rpe.visualization import embedding_loops, overlay_instances
from keras_rpe.visualization.embeddings import MAX_SCALE, PROJECTIONS, Projection

# DATA_CLASS_BLOB_SEQUENCE of TensorFlow's summary.proto, which TensorFlow exports no name for.
_BLOB_SEQUENCE = 3
_METHODS = ("predict_instances", "embed", "shift")


class EmbeddingBoard(keras.callbacks.Callback):
    """Write pictures of a few images for TensorBoard at the end of an epoch.

    For image i, `instances/i` is the image with the instances that the model finds, as
    `overlay_instances` draws them, and `embedding/i` the image beside its embeddings before mean
    shift and after each loop, as `embedding_loops` draws them. The step is the epoch from 0, as in
    `keras.callbacks.TensorBoard`. The package tensorboard is needed only to look at them:
    `tensorboard --logdir FOLDER`.

    Args:
        folder: Folder of the event files; it is made if it is missing.
        images: Images as `predict_instances` takes them, at least one; sizes may differ.
        frequency: The pictures are written every `frequency` epochs, at least 1.
        projection: How embeddings of more than three dimensions become colors, see
            `embedding_colors`; random axes by default, which stay the same from epoch to epoch.
        seed: Seed of the random axes, at least 0.
        scale: Side of the square that is drawn for a pixel, from 1 to 16, for small images.

    Raises:
        ImportError: If TensorFlow is not installed.
        ValueError: If an argument is not as above.
        TypeError: If the model lacks the methods of an `InstanceSegmenter`, before training.
        OSError: If the folder cannot be made.

    Source: the embeddings of Kong & Fowlkes (CVPR 2018), drawn while they are learned.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_rpe.callbacks import EmbeddingBoard
        >>> images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3))
        >>> board = EmbeddingBoard(tempfile.mkdtemp(), images[:1])
        >>> # model.fit(images, maps, callbacks=[board]) then writes the pictures of every epoch.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        images: Iterable[Any],
        frequency: int = 1,
        projection: Projection = "random",
        seed: int = 0,
        scale: int = 1,
    ) -> None:
        super().__init__()
        try:
            import tensorflow as tf
        except ModuleNotFoundError:
            raise ImportError(
                "EmbeddingBoard writes files of TensorBoard by TensorFlow: pip install tensorflow"
            ) from None
        self._tf = tf
        self.frequency = check_integer("frequency", frequency)
        check_choice("projection", projection, PROJECTIONS)
        self.projection: Projection = projection
        self.seed = check_integer("seed", seed, 0)
        self.scale = check_integer("scale", scale, 1, MAX_SCALE)
        try:
            self.images = [np.asarray(image) for image in images]
        except TypeError:
            raise ValueError(
                f"`images` must be a list of images. Received: {type(images).__name__}"
            ) from None
        if not self.images:
            raise ValueError("`images` must hold at least one image. Received: none")
        for index, image in enumerate(self.images):
            try:
                rgb_array(image)
            except ValueError as error:
                raise ValueError(f"Image {index} of `images`: {error}") from None
        self.folder = os.fspath(folder)
        self._writer: Any = None

    def set_model(self, model: Any) -> None:
        """Take the model to draw; Keras calls this before training."""
        if not all(callable(getattr(model, name, None)) for name in _METHODS):
            raise TypeError(
                "`model` must have the methods predict_instances, embed and shift of an "
                f"InstanceSegmenter. Received: {type(model).__name__}"
            )
        super().set_model(model)

    def pictures(self) -> dict[str, np.ndarray]:
        """Draw all images with the model as it is.

        Returns:
            The pictures, uint8 RGB, by their names on the board.
        """
        drawn = {}
        for index, image in enumerate(self.images):
            labels = self.model.predict_instances(image).labels
            overlay = overlay_instances(image, labels)
            drawn[f"instances/{index}"] = overlay.repeat(self.scale, 0).repeat(self.scale, 1)
            drawn[f"embedding/{index}"] = embedding_loops(
                self.model, image, True, self.projection, self.seed, self.scale
            )
        return drawn

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open an event file."""
        self._writer = self._tf.summary.create_file_writer(self.folder)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the pictures."""
        if (epoch + 1) % self.frequency:
            return
        # Another callback may have the recording switched off between its own steps.
        with self._writer.as_default(step=epoch), self._tf.summary.record_if(True):
            for name, picture in self.pictures().items():
                _write_image(self._tf, name, picture)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the event file."""
        self._writer.close()


def _write_image(tf: Any, name: str, picture: np.ndarray) -> None:
    """Write what `tf.summary.image` would, which needs the package tensorboard."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "images"
    metadata.data_class = _BLOB_SEQUENCE
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    height, width = picture.shape[:2]
    content = tf.constant([str(width), str(height), file.getvalue()])
    tf.summary.write(name, content, metadata=metadata)
