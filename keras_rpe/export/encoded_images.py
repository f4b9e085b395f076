"""PNG and JPEG files decoded inside the graph."""

from __future__ import annotations

import tensorflow as tf

from keras_rpe.export.image_checks import check_size

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
        >>> from keras_rpe.export.encoded_images import decode_image
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
