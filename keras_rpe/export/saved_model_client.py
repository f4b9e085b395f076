"""A SavedModel that runs in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_rpe.export.saved_model import latest_version
from keras_rpe.export.served_model import ServedModel, refusal

_GRAPH = "saved_model.pb"
_DTYPES = {"serving_default": tf.uint8, "float_image": tf.float32}


class SavedModelClient(ServedModel):
    """A SavedModel that TensorFlow runs.

    Args:
        folder: Folder of a version, `…/NAME/1`, or of all of them, `…/NAME`, for the highest.

    Raises:
        ValueError: If there is none in it, it is damaged, or not of this package.
    """

    def __init__(self, folder: Path) -> None:
        version = _version_folder(folder)
        try:
            self._loaded = tf.saved_model.load(str(version))
            self._signatures = {
                name: signature
                for name, signature in self._loaded.signatures.items()
                if _takes_image(signature, _DTYPES.get(name))
            }
        except Exception as error:  # whatever the parsers of its parts raise
            raise ValueError(
                "`path_or_url` must be a SavedModel that is whole. "
                f"Received: path_or_url={str(version)!r}, {refusal(error)}"
            ) from error
        if "serving_default" not in self._signatures:
            raise ValueError(
                "`path_or_url` must be a SavedModel whose signature `serving_default` takes "
                f"`image`, uint8 (batch, height, width, 3). Received: path_or_url={str(version)!r}"
            )
        super().__init__(str(version), takes_floats="float_image" in self._signatures)

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Run the signature for the data type of the images."""
        name = "serving_default" if images.dtype == np.uint8 else "float_image"
        try:
            result = self._signatures[name](image=tf.constant(images))
        except tf.errors.OpError as error:
            raise ValueError(f"{self.source} refused the image: {refusal(error)}") from error
        return {key: value.numpy() for key, value in result.items()}


def _version_folder(folder: Path) -> Path:
    version = folder if (folder / _GRAPH).is_file() else latest_version(folder)
    if not (version / _GRAPH).is_file():
        raise ValueError(
            f"`path_or_url` must be a folder with a {_GRAPH}, or with versions, 1, 2, …, whose "
            f"highest has one. Received: path_or_url={str(folder)!r}, without {version / _GRAPH}"
        )
    return version


def _takes_image(signature: Any, dtype: tf.DType | None) -> bool:
    inputs = signature.structured_input_signature[1]
    if dtype is None or set(inputs) != {"image"}:
        return False
    spec = inputs["image"]
    return bool(spec.dtype == dtype and spec.shape.is_compatible_with((1, 8, 8, 3)))
