"""Static int8 for the convolutions of a LiteRT model."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_rpe.held_back_stderr import held_back_stderr
from keras_rpe.models.image_array import rgb_array
from keras_rpe.optional_import import optional_import


def calibration_samples(images: Iterable[Any]) -> list[dict[str, np.ndarray]]:
    """Check images and make them inputs of the graph.

    Args:
        images: Images as `predict_instances` takes them, uint8.

    Returns:
        For each, `image`, `(1, H, W, 3)`.

    Raises:
        ValueError: If there is none, or one is not such an image.
        ImportError: If the extra `litert`, which quantizes, is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.export.quantization import calibration_samples
        >>> calibration_samples([np.zeros((9, 10), "uint8")])[0]["image"].shape
        (1, 9, 10, 3)
    """
    optional_import("ai_edge_quantizer", "litert")
    samples = [{"image": _uint8_image(image)[None]} for image in images]
    if not samples:
        raise ValueError("`representative_data` must hold at least one image. Received: none")
    return samples


def quantize_convolutions(content: bytes, samples: list[dict[str, np.ndarray]]) -> bytes:
    """Quantize the weights and the activations of all convolutions to int8.

    The rest, which is the normalisation and the grouping, stays in float32: it has no weights,
    takes a small part of the file, and its kernel needs more than 8 bits.

    Args:
        content: Content of a float32 .tflite file.
        samples: Inputs whose activations give the ranges.

    Returns:
        The content of the quantized file; its metadata stays.
    """
    quantizer = optional_import("ai_edge_quantizer.quantizer", "litert")
    qtyping = optional_import("ai_edge_quantizer.qtyping", "litert")
    config = qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False),
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
        ),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )
    names = qtyping.TFLOperationName
    quantizing = quantizer.Quantizer(bytearray(content))
    for operator in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.CONV_2D_TRANSPOSE):
        quantizing.update_quantization_recipe(regex=".*", operation_name=operator, op_config=config)
    # It writes its progress and the runtime's notes.
    with contextlib.redirect_stdout(io.StringIO()), held_back_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranges = quantizing.calibrate({"serving_default": samples})
        return bytes(quantizing.quantize(ranges).quantized_model)


def _uint8_image(image: Any) -> np.ndarray:
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise ValueError(
            f"`representative_data` must hold uint8 images. Received: dtype={array.dtype}"
        )
    return rgb_array(array).astype("uint8")
