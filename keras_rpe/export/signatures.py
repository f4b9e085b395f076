"""What exported graphs compute: from the pixels or files of a request to named tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from keras_rpe.export.encoded_images import decode_image
from keras_rpe.export.image_checks import checked_images

if TYPE_CHECKING:
    from keras_rpe.models import Task

Outputs = dict[str, tf.Tensor]
# The function of a signature, and the tensor that it takes.
Signature = tuple[Callable[[tf.Tensor], Outputs], tf.TensorSpec]

IMAGE = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
_FLOAT_IMAGE = tf.TensorSpec((None, None, None, 3), tf.float32, name="image")
# TensorFlow Serving takes base64 in JSON for inputs of names that end in _bytes.
_BYTES = tf.TensorSpec((None,), tf.string, name="image_bytes")


def plain_signature(model: Task) -> Signature:
    """Give the function of phones and of other runtimes: images to what it finds, without checks.

    Args:
        model: The model.

    Returns:
        The function, and the tensor that it takes: `image`, uint8 RGB `(batch, H, W, 3)`. Its
        result is that of `Task.serve`.
    """

    def serve(image: tf.Tensor) -> Outputs:
        return model.serve(tf.cast(image, tf.float32))

    return serve, IMAGE


def serving_signatures(model: Task, max_pixels: int) -> dict[str, Signature]:
    """Give the functions of a SavedModel.

    Args:
        model: The model.
        max_pixels: Most pixels, batch · H · W, of a request; of one file for `image_bytes`.

    Returns:
        By the name of the signature: the function, and the tensor that it takes.
        `serving_default`: `image`, uint8 RGB `(batch, H, W, 3)`, to what
        `Task.serve` gives. `float_image`: the same for float32 images of any
        range, such as those of 16 bit. `image_bytes`: `image_bytes`, PNG or JPEG files
        `(batch,)`, which may differ in size, to the same and `size`, int32 `(batch, 2)`, the
        height and width of each; the maps of smaller images are 0 beyond. `embeddings`, of models
        that embed pixels: `image` to `embeddings`, unit vectors before mean shift
        `(batch, h, w, D)`, and `class_scores` `(batch, H, W, num_classes)`.
    """
    maps = [*model.served_maps, *model.served_stacks]

    def serve(image: tf.Tensor) -> Outputs:
        return model.serve(tf.cast(checked_images(image, max_pixels), tf.float32))

    def serve_file(content: tf.Tensor) -> Outputs:
        image = decode_image(content, max_pixels)
        result = {name: value[0] for name, value in model.serve(image[None]).items()}
        for name in maps:
            result[name] = tf.RaggedTensor.from_tensor(result[name])
        return {**result, "size": tf.shape(image)[:2]}

    def serve_files(image_bytes: tf.Tensor) -> Outputs:
        message = "`image_bytes` must hold at least one file"
        with tf.control_dependencies([tf.debugging.Assert(tf.size(image_bytes) > 0, [message])]):
            image_bytes = tf.identity(image_bytes)
        specs = {
            name: tf.RaggedTensorSpec((None, None), tf.as_dtype(dtype), ragged_rank=1)
            for name, dtype in model.served_maps.items()
        }
        specs |= {
            name: tf.RaggedTensorSpec((None, None, None), tf.as_dtype(dtype), ragged_rank=1)
            for name, dtype in model.served_stacks.items()
        }
        specs |= {name: tf.as_dtype(dtype) for name, dtype in model.served_tables.items()}
        specs["size"] = tf.int32
        # One after the other, so that memory is that of the largest image.
        result = tf.map_fn(
            serve_file, image_bytes, fn_output_signature=specs, parallel_iterations=1
        )
        return result | {name: result[name].to_tensor() for name in maps}

    def embed(image: tf.Tensor) -> Outputs:
        image = tf.cast(checked_images(image, max_pixels), tf.float32)
        embeddings, scores = model.embed(image)
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        return {"embeddings": embeddings, "class_scores": scores[:, :height, :width]}

    signatures = {
        "serving_default": (serve, IMAGE),
        "float_image": (serve, _FLOAT_IMAGE),
        "image_bytes": (serve_files, _BYTES),
    }
    return {**signatures, "embeddings": (embed, IMAGE)} if hasattr(model, "embed") else signatures


def write_signatures(signatures: dict[str, Signature], folder: str) -> None:
    """Write a SavedModel.

    Args:
        signatures: Functions by name, and the tensor that each takes.
        folder: Where to write it.

    Raises:
        OSError: If it cannot be written.
    """
    import keras

    archive = keras.export.ExportArchive()
    for name, (function, spec) in signatures.items():
        # The variables that a function reads are tracked by themselves; to track the model as well
        # would store each of them twice.
        archive.add_endpoint(name, function, input_signature=[spec])
    archive.write_out(folder, verbose=False)
