"""Static int8 for the convolutions of a LiteRT model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_rpe.export.optional_import import optional_import
from keras_rpe.models.image_array import rgb_array


def quantize_convolutions(content: bytes, representative_data: Iterable[Any]) -> bytes:
    """Quantize the weights and the activations of all convolutions to int8.

    The rest, which is the normalisation and the grouping, stays in float32: it has no weights,
    takes a small part of the file, and its kernel needs more than 8 bits.

    Args:
        content: Content of a float32 .tflite file.
        representative_data: Images, uint8, whose activations give the ranges.

    Returns:
        The content of the quantized file.

    Raises:
        ValueError: If there is no image, or one is not uint8.
        ImportError: If the extra `litert` is not installed.
    """
    name = "ai_edge_quantizer"
    quantizer = optional_import(f"{name}.quantizer", "litert")
    qtyping = optional_import(f"{name}.qtyping", "litert")
    samples = [{"image": _uint8_image(image)[None]} for image in representative_data]
    if not samples:
        raise ValueError("`representative_data` must hold at least one image. Received: none")
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
    ranges = quantizing.calibrate({"serving_default": samples})
    return bytes(quantizing.quantize(ranges).quantized_model)


def _uint8_image(image: Any) -> np.ndarray:
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise ValueError(
            f"`representative_data` must hold uint8 images. Received: dtype={array.dtype}"
        )
    return rgb_array(array).astype("uint8")
