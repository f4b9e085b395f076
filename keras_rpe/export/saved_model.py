"""SavedModels whose signatures take pixels and give what the task finds."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_rpe.arguments import check_integer
from keras_rpe.results import MIN_SIDE
from keras_rpe.version import __version__
from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    from keras_rpe.models import Task

RECORD_NAME = "keras_rpe.json"
EXTRA_FOLDER = "assets.extra"
# The preset `nuclei` needs some 4 GB for a request of this many pixels.
MAX_PIXELS = 2048 * 2048

Outputs = dict[str, tf.Tensor]
# The function of a signature, and the tensors that it takes.
Signature = tuple[Callable[..., Outputs], Sequence[tf.TensorSpec]]


@dataclass(frozen=True)
class ExportRecord:
    """Origin of an exported model, kept inside it.

    Attributes:
        format: "tf_saved_model", "litert" or "onnx".
        quantize: How the weights are stored: "float16", "dynamic", "int8", or `None` for float32.
        source: The preset or the file that the Keras model was loaded from, `None` if unknown.
        keras_rpe_version: Version of this package.

    Example:
        >>> from keras_rpe.export import ExportRecord
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
            ValueError: If the text is not such a record.
        """
        content: Any = json.loads(text)
        names = {"format", "quantize", "source", "keras_rpe_version"}
        if not isinstance(content, dict) or not names <= set(content):
            raise ValueError(f"An export record must hold {sorted(names)}. Received: {content!r}")
        return cls(**{name: content[name] for name in names})


def checked_images(images: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Pass a batch of images on, or fail with one sentence, inside the graph.

    It must hold at least one image, `(batch, H, W, 3)`, of at least 8 pixels a side and of finite
    values, and at most `max_pixels` pixels, batch · H · W.
    """
    shape = tf.shape(images, out_type=tf.int64)
    # Checked by the number of values: the static shape is the one expected, but not every server
    # holds its clients to it.
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
    fits = _check_size(shape[1], shape[2], shape[0], max_pixels, "image")
    with tf.control_dependencies([fits]):
        images = tf.identity(images)
    if not images.dtype.is_floating:
        return images
    finite = tf.reduce_all(tf.math.is_finite(images))
    message = "`image` must be finite. Received: NaN or infinite pixels"
    with tf.control_dependencies([tf.debugging.Assert(finite, [message])]):
        return tf.identity(images)


def _check_size(
    height: tf.Tensor, width: tf.Tensor, batch: tf.Tensor | int, max_pixels: int, name: str
) -> tf.Operation:
    """The operation that fails if images are too small, or too large in all."""
    fits = tf.logical_and(
        tf.minimum(height, width) >= MIN_SIDE,
        # A division, since the product of sizes that a header states may overflow.
        width <= max_pixels // batch // tf.maximum(height, 1),
    )
    message = tf.strings.format(
        f"`{name}` must be at least {MIN_SIDE} pixels high and wide, and of at most {max_pixels} "
        "pixels in all images of a request. Received: batch={}, height={}, width={}",
        (batch, height, width),
    )
    return tf.debugging.Assert(fits, [message])


def _checked_diameters(diameter: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Pass diameters on, one or one of each image, or fail with one sentence, inside the graph."""
    right = tf.logical_and(
        tf.reduce_all(tf.logical_and(diameter > 0, tf.math.is_finite(diameter))),
        tf.logical_or(
            tf.equal(tf.size(diameter), 1), tf.equal(tf.size(diameter), tf.shape(images)[0])
        ),
    )
    message = tf.strings.format(
        "`diameter` must be a positive number of pixels, or one of each image. Received: {}",
        (diameter,),
    )
    with tf.control_dependencies([tf.debugging.Assert(right, [message])]):
        return tf.identity(diameter)


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Offsets in a PNG file: width and height as big-endian integers, then the bits of a channel.
_PNG_SIZE, _PNG_DEPTH, _PNG_HEADER = 16, 24, 25


def decode_image(content: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decode one PNG or JPEG file inside the graph; the size in its header is checked first.

    The result is float32 `(H, W, 3)`, 0 to 255, or to 65535 for a PNG file of 16 bits; gray is
    repeated and alpha dropped.
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

    def png_size() -> tf.Tensor:
        stated = tf.strings.substr(content, _PNG_SIZE, 8)
        return tf.cast(tf.io.decode_raw(stated, tf.int32, little_endian=False)[::-1], tf.int64)

    def jpeg_size() -> tf.Tensor:
        return tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64)

    def png(dtype: tf.DType) -> tf.Tensor:
        return tf.cast(tf.io.decode_png(content, channels=3, dtype=dtype), tf.float32)

    def any_png() -> tf.Tensor:
        is_deep = tf.strings.substr(content, _PNG_DEPTH, 1) == b"\x10"
        return tf.cond(is_deep, lambda: png(tf.uint16), lambda: png(tf.uint8))

    def jpeg() -> tf.Tensor:
        # As Pillow and browsers decode.
        image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.cast(image, tf.float32)

    with tf.control_dependencies([tf.debugging.Assert(tf.logical_or(is_png, is_jpeg), [message])]):
        size = tf.cond(is_png, png_size, jpeg_size)
    with tf.control_dependencies([_check_size(size[0], size[1], 1, max_pixels, "image_bytes")]):
        image = tf.cond(is_png, any_png, jpeg)
    return tf.ensure_shape(image, (None, None, 3))


IMAGE = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
_FLOAT_IMAGE = tf.TensorSpec((None, None, None, 3), tf.float32, name="image")
# TensorFlow Serving takes base64 in JSON for inputs whose names end in _bytes.
_BYTES = tf.TensorSpec((None,), tf.string, name="image_bytes")
_DIAMETER = tf.TensorSpec((None,), tf.float32, name="diameter")


def serving_signatures(model: Task, max_pixels: int) -> dict[str, Signature]:
    """The functions of a SavedModel, by the names of their signatures."""
    maps = [*model.served_maps, *model.served_stacks]

    # One function of the graph that three signatures call: it is traced and stored once.
    found = tf.function(lambda image: model.serve(image), input_signature=[_FLOAT_IMAGE])

    def serve(image: tf.Tensor) -> Outputs:
        return found(tf.cast(checked_images(image, max_pixels), tf.float32))

    def serve_file(content: tf.Tensor) -> Outputs:
        image = decode_image(content, max_pixels)
        result = {name: value[0] for name, value in found(image[None]).items()}
        for name in maps:
            result[name] = tf.RaggedTensor.from_tensor(result[name])
        return {**result, "size": tf.shape(image)[:2]}

    def serve_files(image_bytes: tf.Tensor) -> Outputs:
        message = "`image_bytes` must hold at least one file"
        with tf.control_dependencies([tf.debugging.Assert(tf.size(image_bytes) > 0, [message])]):
            image_bytes = tf.identity(image_bytes)
        specs: dict[str, Any] = {
            name: tf.RaggedTensorSpec((None,) * rank, tf.as_dtype(dtype), ragged_rank=1)
            for rank, outputs in ((2, model.served_maps), (3, model.served_stacks))
            for name, dtype in outputs.items()
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

    segmenter: Any = model  # One that takes a diameter.

    def serve_at(image: tf.Tensor, diameter: tf.Tensor) -> Outputs:
        image = checked_images(image, max_pixels)
        return segmenter.serve(image, _checked_diameters(diameter, image))

    signatures: dict[str, Signature] = {
        "serving_default": (serve, [IMAGE]),
        "float_image": (serve, [_FLOAT_IMAGE]),
        "image_bytes": (serve_files, [_BYTES]),
    }
    if model.takes_diameter:
        signatures["diameter"] = serve_at, [_FLOAT_IMAGE, _DIAMETER]
    if hasattr(model, "embed"):
        signatures["embeddings"] = embed, [IMAGE]
    return signatures


def write_signatures(signatures: dict[str, Signature], folder: str) -> None:
    """Write a SavedModel of these functions."""
    archive = keras.export.ExportArchive()
    for name, (function, specs) in signatures.items():
        # The variables that a function reads are tracked by themselves; tracking the model as well
        # would store each of them twice.
        archive.add_endpoint(name, function, input_signature=[*specs])
    archive.write_out(folder, verbose=False)


def export_saved_model(
    model: Task, path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> Path:
    """Write a SavedModel whose graph takes pixels and gives what the task finds.

    It has these signatures:

    * `serving_default`: `image`, uint8 RGB `(batch, H, W, 3)`, to what `Task.serve` gives.
    * `float_image`: the same for float32 images of any range, such as those of 16 bits.
    * `image_bytes`: `image_bytes`, PNG or JPEG files `(batch,)`, which may differ in size, to the
      same and `size`, int32 `(batch, 2)`, the height and width of each; the maps of smaller images
      are 0 beyond.
    * `diameter`, of models that find the diameter of objects: `image`, float32 of any range, and
      `diameter`, float32 `(1,)` or `(batch,)`, in pixels, in place of the one that they would find.
    * `embeddings`, of models that embed pixels: `image` to `embeddings`, unit vectors before mean
      shift `(batch, h, w, D)`, and `class_scores` `(batch, H, W, num_classes)`.

    For TensorFlow Serving, requests that warm up each signature are written into
    `assets.extra/tf_serving_warmup_requests`, and `models.config` into the folder above. The
    package tensorflow-serving-api is not needed for either.

    Args:
        model: The model.
        path: Folder of the model, `…/NAME`, whose next version is written, `…/NAME/1` at first;
            or that of a version that does not exist yet, `…/NAME/7`.
        max_pixels: Most pixels, batch · H · W, of a request, and of one file in `image_bytes`; the
            graph refuses more.

    Returns:
        The folder of the version.

    Raises:
        ValueError: If the version exists, or `max_pixels` is below 64.
        OSError: If the folder cannot be written.
    """
    check_integer("max_pixels", max_pixels, at_least=MIN_SIDE**2)
    target = _next_version(Path(path))
    name_folder = target.resolve().parent
    name_folder.mkdir(parents=True, exist_ok=True)
    # A server looks for folders whose names are numbers, so it does not see this one.
    temporary = Path(tempfile.mkdtemp(prefix=".exporting-", dir=name_folder))
    try:
        version = temporary / "version"
        signatures = serving_signatures(model, max_pixels)
        write_signatures(signatures, str(version))
        extra = version / EXTRA_FOLDER
        extra.mkdir(exist_ok=True)
        _write_warmup_requests(extra, name_folder.name, signatures)
        record = ExportRecord("tf_saved_model", source=model.source)
        (extra / RECORD_NAME).write_text(record.to_json(), encoding="utf-8")
        _write_models_config(name_folder)
        version.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _next_version(path: Path) -> Path:
    if path.name.isdecimal():
        if path.exists():
            raise ValueError(
                "`filepath` must be a version that does not exist yet, or a folder without a "
                f"number, which gets its next version. Received: filepath={str(path)!r}"
            )
        return path
    if path.exists() and not path.is_dir():
        raise ValueError(f"`filepath` must be a folder. Received: the file {str(path)!r}")
    return path / str(max(_versions(path), default=0) + 1)


def latest_version(path: Path) -> Path:
    """The folder of the version that a server would take; `path` itself if it has no versions."""
    versions = _versions(path)
    return path / str(max(versions)) if versions else path


def _versions(path: Path) -> list[int]:
    entries = path.iterdir() if path.is_dir() else iter(())
    return [int(entry.name) for entry in entries if entry.name.isdecimal()]


# What follows writes two files in the formats of TensorFlow Serving without its package, which
# needs a gRPC stack that an export has no use for. The tests read both with that package.


def _write_models_config(folder: Path) -> None:
    """Write what the server's option `--model_config_file` takes.

    The model is served by the name of its folder, from `/models/NAME`, which is where the official
    container images look for models.
    """
    name, place = json.dumps(folder.name), json.dumps(f"/models/{folder.name}")
    lines = (f"name: {name}", f"base_path: {place}", 'model_platform: "tensorflow"')
    entry = "".join(f"    {line}\n" for line in lines)
    text = f"model_config_list {{\n  config {{\n{entry}  }}\n}}\n"
    write_file(folder / "models.config", text)


def _write_warmup_requests(folder: Path, model_name: str, signatures: Iterable[str]) -> None:
    """Write the requests that a server answers to itself before it takes those of clients."""
    # Something to segment: bright discs on a dark ground.
    rows, columns = np.mgrid[:96, :96] % 32 - 16
    disc = np.where(rows**2 + columns**2 < 100, 200, 20).astype("uint8")
    image = np.repeat(disc[..., None], 3, axis=-1)
    pixels = {"image": image[None]}
    floats = {"image": image[None].astype("float32")}
    inputs = {
        "serving_default": pixels,
        "float_image": floats,
        "image_bytes": {"image_bytes": np.array([tf.io.encode_png(image).numpy()], object)},
        "diameter": {**floats, "diameter": np.array([20], "float32")},
        "embeddings": pixels,
    }
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for signature in signatures:
            spec = _field(1, model_name.encode()) + _field(3, signature.encode())
            entries = b""
            for name, value in inputs[signature].items():
                tensor = tf.make_tensor_proto(value).SerializeToString()
                entries += _field(2, _field(1, name.encode()) + _field(2, tensor))
            # PredictionLog.predict_log.request, a PredictRequest of model_spec and inputs.
            writer.write(_field(6, _field(1, _field(1, spec) + entries)))


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes: its key, its length in 7-bit groups, these."""
    size, key = len(content), [number << 3 | 2]
    while size >= 128:
        key.append(size & 127 | 128)
        size >>= 7
    return bytes([*key, size]) + content
