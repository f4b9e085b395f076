"""Models in `.keras` files of unknown origin."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_rpe.models.presets.model_config import build_model, first_line
from keras_rpe.models.presets.preset_error import PresetError
from keras_rpe.models.presets.preset_files import CONFIG, MAX_JSON_BYTES, WEIGHTS, parse_json
from keras_rpe.models.presets.weights_file import check_shapes, load_weights, weight_shapes
from keras_rpe.models.presets.zip_member import copy_member


def load_keras_file(
    path: str | os.PathLike[str], trusted_packages: Sequence[str] = ()
) -> keras.Model:
    """Load a keras_rpe model that `model.save` wrote, checked like a preset before it is made.

    `keras.saving.load_model` is the way for files of one's own: it also restores how a model was
    compiled, and the state of its optimizer.

    Args:
        path: A `.keras` file.
        trusted_packages: Packages other than keras and keras_rpe whose classes may be made, such
            as "keras_hub".

    Returns:
        The model, not compiled.

    Raises:
        PresetError: If it is no such file, damaged, names other classes or ones that can run code,
            or its weights do not fit.

    Example:
        >>> import tempfile
        >>> from keras_rpe.models import InstanceSegmenter, load_keras_file
        >>> path = tempfile.mkdtemp() + "/model.keras"
        >>> InstanceSegmenter("unet_small", embedding_dim=8).save(path)
        >>> load_keras_file(path).embedding_dim
        8
    """
    file_path = Path(path)
    name = f"The model {file_path}"
    with tempfile.TemporaryDirectory(prefix="keras_rpe-") as folder:
        weights = Path(folder) / WEIGHTS
        try:
            with zipfile.ZipFile(file_path) as file:
                config = file.open(CONFIG).read(MAX_JSON_BYTES + 1)
                copy_member(file, file.getinfo(WEIGHTS), weights, name)
        except PresetError:
            raise
        except Exception as error:
            # Damaged zip files raise BadZipFile, zlib.error, KeyError, EOFError and more.
            raise PresetError(
                f"{name} is damaged or of another kind: {first_line(error)}"
            ) from error
        content = parse_json(config, name)
        shapes = weight_shapes(weights)
        model = build_model(
            content, name, lambda v: check_shapes(shapes, v, file_path), trusted_packages
        )
        load_weights(model, weights)
    return model
