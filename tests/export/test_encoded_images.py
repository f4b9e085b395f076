import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_rpe.export.saved_model import decode_image

LIMIT = 100_000
decode = tf.function(
    lambda content: decode_image(content, LIMIT), input_signature=[tf.TensorSpec((), tf.string)]
)


def encoded(array: np.ndarray, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype="uint8")


def test_png_of_every_layout(rgb):
    rgba = np.concatenate([rgb, np.full((20, 30, 1), 9, "uint8")], axis=-1)
    gray = rgb[..., 0]
    np.testing.assert_array_equal(decode(encoded(rgb)), rgb)
    np.testing.assert_array_equal(decode(encoded(rgba)), rgb)
    np.testing.assert_array_equal(decode(encoded(gray)), np.repeat(gray[..., None], 3, -1))
    palette = Image.fromarray(rgb).quantize(16)
    buffer = io.BytesIO()
    palette.save(buffer, format="PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue()), np.asarray(palette.convert("RGB")))


def test_16_bit_keeps_its_values():
    deep = np.random.default_rng(0).integers(0, 65536, (16, 9), dtype="uint16")
    np.testing.assert_array_equal(decode(encoded(deep))[..., 1], deep)


def test_jpeg(rgb):
    smooth = np.asarray(Image.fromarray(rgb).resize((90, 60), Image.Resampling.BICUBIC))
    content = encoded(smooth, "JPEG", quality=95)
    reference = np.asarray(Image.open(io.BytesIO(content)))
    # Decoders may round differently.
    assert np.abs(np.asarray(decode(content)) - reference).max() <= 3


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("size", [(60000, 60000), (2**31 - 1, 2**31 - 1), (7, 50), (50, 0)])
def test_stated_size_is_checked_before_decoding(size):
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 100000 pixels"):
        decode(png_header(*size))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(50), b"BM" + bytes(90)]
)
def test_other_content_is_refused(content):
    message = f"must be PNG or JPEG files. Received: {len(content)} bytes"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(content)


def test_damaged_files_are_refused(rgb):
    png, jpeg = encoded(rgb), encoded(rgb, "JPEG")
    for content in (png[: len(png) // 2], jpeg[:20], b"\xff\xd8\xff" + bytes(40)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid"):
            decode(content)
