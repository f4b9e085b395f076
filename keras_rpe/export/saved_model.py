"""SavedModels whose signatures take pixels and give instances."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from keras_rpe.results import MIN_SIDE
from keras_rpe.version import __version__
from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    from keras_rpe.models import Task

RECORD_NAME = "keras_rpe.json"


@dataclass(frozen=True)
class ExportRecord:
    """Origin of an exported model, kept inside it.

    Attributes:
        format: "tf_saved_model", "litert" or "onnx".
        quantize: How the weights are kept: "float16", "dynamic", "int8" or `None` for float32.
        source: The preset or the file that the Keras model was loaded from, `None` if unknown.
        keras_rpe_version: Version of this package.

    Example:
        >>> from keras_rpe.export.saved_model import ExportRecord
        >>> record = ExportRecord("onnx", None, "nuclei")
        >>> ExportRecord.from_json(record.to_json()) == record
        True
    """

    format: str
    quantize: str | None = None
    source: str | None = None
    keras_rpe_version: str = __version__

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> ExportRecord:
        """Read it from JSON.

        Raises:
            ValueError: If it is none.
        """
        content: Any = json.loads(text)
        names = {"format", "quantize", "source", "keras_rpe_version"}
        if not isinstance(content, dict) or not names <= set(content):
            raise ValueError(f"An export record must hold {sorted(names)}. Received: {content!r}")
        return cls(**{name: content[name] for name in names})


# A request of that many pixels takes the preset `nuclei` some 4 GB.
MAX_PIXELS = 2048 * 2048


def checked_images(images: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Let a batch of images through, or fail with one sentence, inside the graph.

    Args:
        images: `(batch, H, W, 3)`, any data type.
        max_pixels: Most pixels, batch · H · W, of a request.

    Returns:
        The same images.

    Raises:
        tf.errors.InvalidArgumentError: When it runs, if the batch is empty or of another rank, a
            side is below 8 pixels, there are more pixels than that, or one is not finite.

    Example:
        >>> import tensorflow as tf
        >>> from keras_rpe.export.saved_model import checked_images
        >>> checked_images(tf.zeros((1, 8, 9, 3), "uint8"), max_pixels=100).shape.as_list()
        [1, 8, 9, 3]
    """
    shape = tf.shape(images, out_type=tf.int64)
    # By the number of values: the static shape says nothing else than what is wanted here, while
    # not every server holds its clients to it.
    right = tf.logical_and(
        shape[0] >= 1, tf.size(images, out_type=tf.int64) == 3 * tf.reduce_prod(shape[:3])
    )
    message = tf.strings.format(
        "`image` must be of shape (batch, height, width, 3), with at least one image. "
        "Received: shape={}",
        (shape,),
    )
    with tf.control_dependencies([tf.debugging.Assert(right, [message])]):
        shape = tf.identity(shape)
    fits = check_size(shape[1], shape[2], shape[0], max_pixels, "image")
    with tf.control_dependencies([fits]):
        images = tf.identity(images)
    if not images.dtype.is_floating:
        return images
    finite = tf.reduce_all(tf.math.is_finite(images))
    message = "`image` must be finite. Received: NaN or infinite pixels"
    with tf.control_dependencies([tf.debugging.Assert(finite, [message])]):
        return tf.identity(images)


def check_size(
    height: tf.Tensor, width: tf.Tensor, batch: tf.Tensor | int, max_pixels: int, name: str
) -> tf.Operation:
    """Check the size of images.

    Args:
        height: Their height, a scalar int64.
        width: Their width.
        batch: How many there are.
        max_pixels: Most pixels, batch · height · width.
        name: Name of the input, for the message.

    Returns:
        The operation that fails, when it runs, if a side is below 8 pixels or there are more
        pixels than that.
    """
    fits = tf.logical_and(
        tf.minimum(height, width) >= MIN_SIDE,
        # A division, since a product of sizes that a header claims may overflow.
        width <= max_pixels // batch // tf.maximum(height, 1),
    )
    message = tf.strings.format(
        f"`{name}` must be at least {MIN_SIDE} pixels high and wide, and of at most {max_pixels} "
        "pixels in all images of a request. Received: batch={}, height={}, width={}",
        (batch, height, width),
    )
    return tf.debugging.Assert(fits, [message])


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Offsets in a PNG file: width and height as big-endian integers, then the bits of a channel.
_PNG_SIZE, _PNG_DEPTH, _PNG_HEADER = 16, 24, 25


def decode_image(content: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decode one PNG or JPEG file inside the graph.

    The size that its header states is checked before anything is decoded.

    Args:
        content: The bytes of the file, a scalar string.
        max_pixels: Most pixels of the image.

    Returns:
        float32 `(H, W, 3)`, values 0 to 255, or to 65535 of a PNG file of 16 bit; gray is repeated
        and alpha dropped.

    Raises:
        tf.errors.InvalidArgumentError: When it runs, if it is no such file, damaged, below 8
            pixels a side, or of more pixels than that.

    Example:
        >>> import tensorflow as tf
        >>> from keras_rpe.export.saved_model import decode_image
        >>> content = tf.io.encode_png(tf.fill((8, 9, 1), tf.constant(7, "uint8")))
        >>> decode_image(content, max_pixels=100).numpy()[0, 0].tolist()
        [7.0, 7.0, 7.0]
    """
    is_png = tf.logical_and(
        tf.strings.substr(content, 0, len(_PNG)) == _PNG,
        tf.strings.length(content) >= _PNG_HEADER,
    )
    is_jpeg = tf.strings.substr(content, 0, len(_JPEG)) == _JPEG
    message = tf.strings.format(
        "`image_bytes` must be PNG or JPEG files. Received: {} bytes that are neither",
        (tf.strings.length(content),),
    )
    with tf.control_dependencies([tf.debugging.Assert(tf.logical_or(is_png, is_jpeg), [message])]):
        size = tf.cond(is_png, lambda: _png_size(content), lambda: _jpeg_size(content))
    with tf.control_dependencies([check_size(size[0], size[1], 1, max_pixels, "image_bytes")]):
        image = tf.cond(is_png, lambda: _decode_png(content), lambda: _decode_jpeg(content))
    return tf.ensure_shape(image, (None, None, 3))


def _png_size(content: tf.Tensor) -> tf.Tensor:
    stated = tf.io.decode_raw(
        tf.strings.substr(content, _PNG_SIZE, 8), tf.int32, little_endian=False
    )
    return tf.cast(stated[::-1], tf.int64)


def _jpeg_size(content: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64)


def _decode_png(content: tf.Tensor) -> tf.Tensor:
    def decode(dtype: tf.DType) -> tf.Tensor:
        return tf.cast(tf.io.decode_png(content, channels=3, dtype=dtype), tf.float32)

    is_deep = tf.strings.substr(content, _PNG_DEPTH, 1) == b"\x10"
    return tf.cond(is_deep, lambda: decode(tf.uint16), lambda: decode(tf.uint8))


def _decode_jpeg(content: tf.Tensor) -> tf.Tensor:
    # As Pillow and browsers decode.
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.cast(image, tf.float32)


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


WARMUP_FILE = "tf_serving_warmup_requests"
CONFIG_FILE = "models.config"


def write_models_config(folder: Path) -> None:
    """Write `models.config`, for the server's option `--model_config_file`.

    It serves the model by the name of its folder, from `/models/NAME`, which is where the
    official container images look for models.

    Args:
        folder: Folder of the versions of a model.
    """
    config = model_server_config_pb2.ModelServerConfig()
    entry = config.model_config_list.config.add()
    entry.name = folder.name
    entry.base_path = f"/models/{folder.name}"
    entry.model_platform = "tensorflow"
    write_file(folder / CONFIG_FILE, text_format.MessageToString(config))


def write_warmup_requests(folder: Path, model_name: str, signatures: Container[str]) -> None:
    """Write the requests that a server answers to itself before it takes those of clients.

    Args:
        folder: `assets.extra` of a SavedModel, made if it is missing.
        model_name: Name under which the model is served.
        signatures: Names of its signatures; those that are not known get no request.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = _blobs()
    content = tf.io.encode_png(image).numpy()
    requests = {
        "serving_default": ("image", image[None]),
        "float_image": ("image", image[None].astype("float32")),
        "image_bytes": ("image_bytes", np.array([content], object)),
        "embeddings": ("image", image[None]),
    }
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for signature, (name, value) in requests.items():
            if signature not in signatures:
                continue
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _blobs() -> np.ndarray:
    """An image with something to segment: bright discs on a dark ground, uint8 `(96, 96, 3)`."""
    rows, columns = np.mgrid[:96, :96] % 32 - 16
    disc = np.where(rows**2 + columns**2 < 100, 200, 20).astype("uint8")
    return np.repeat(disc[..., None], 3, axis=-1)


EXTRA_FOLDER = "assets.extra"


def export_saved_model(
    model: Task, path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> Path:
    """Write a SavedModel whose graph takes pixels and gives what the task finds.

    Its signatures are those of `serving_signatures`. Beside it come warm-up requests
    (`assets.extra/tf_serving_warmup_requests`) and, in the folder above, `models.config`.

    Args:
        model: The model.
        path: Folder of the model, `…/NAME`, whose next version is written, `…/NAME/1` at first;
            or that of a version that does not exist yet, `…/NAME/7`.
        max_pixels: Most pixels, batch · H · W, of a request; the graph refuses more.

    Returns:
        The folder of the version.

    Raises:
        ValueError: If the version exists, or `max_pixels` is not positive.
        OSError: If the folder cannot be written.
    """
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 64:
        raise ValueError(
            f"`max_pixels` must be an integer of at least 64. Received: max_pixels={max_pixels!r}"
        )
    target = _version_folder(Path(path))
    name_folder = target.resolve().parent
    name_folder.mkdir(parents=True, exist_ok=True)
    # A server looks for folders whose names are numbers, so it does not see this one.
    temporary = Path(tempfile.mkdtemp(prefix=".exporting-", dir=name_folder))
    try:
        version = temporary / "version"
        signatures = serving_signatures(model, max_pixels)
        write_signatures(signatures, str(version))
        extra = version / EXTRA_FOLDER
        write_warmup_requests(extra, name_folder.name, signatures)
        record = ExportRecord("tf_saved_model", source=model.source)
        (extra / RECORD_NAME).write_text(record.to_json(), encoding="utf-8")
        write_models_config(name_folder)
        version.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _version_folder(path: Path) -> Path:
    if path.name.isdecimal():
        if path.exists():
            raise ValueError(
                f"`filepath` must be a version that does not exist yet, or a folder without a "
                f"number, which gets its next version. Received: filepath={str(path)!r}"
            )
        return path
    if path.exists() and not path.is_dir():
        raise ValueError(f"`filepath` must be a folder. Received: the file {str(path)!r}")
    return path / str(max(_versions(path), default=0) + 1)


def latest_version(path: Path) -> Path:
    """Find the version that a server would take.

    Args:
        path: Folder of the model or of a version.

    Returns:
        The folder of the highest version below `path`; `path` itself where there is none.
    """
    return path / str(max(_versions(path))) if _versions(path) else path


def _versions(path: Path) -> list[int]:
    entries = path.iterdir() if path.is_dir() else iter(())
    return [int(entry.name) for entry in entries if entry.name.isdecimal()]
