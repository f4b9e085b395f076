"""The ranges of pixels that networks trained on ImageNet take."""

from __future__ import annotations

import keras

# Of torchvision: RGB in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def imagenet_input(image: keras.KerasTensor, mode: str) -> keras.KerasTensor:
    """Scale images as a network was trained with.

    Args:
        image: Images `(batch, H, W, 3)`, floats in [0, 1].
        mode: "pixels" for [0, 255], "signed" for [-1, 1], "caffe" for blue, green and red in
            [0, 255] less their means, or "torchvision" for colours of mean 0 and deviation 1.

    Returns:
        The scaled images, of the same shape.

    Example:
        >>> import keras
        >>> from keras_rpe.models.backbones.imagenet_input import imagenet_input
        >>> imagenet_input(keras.Input((None, None, 3)), "caffe").shape
        (None, None, None, 3)
    """
    if mode == "torchvision":
        variances = [deviation**2 for deviation in _DEVIATION]
        return keras.layers.Normalization(mean=list(_MEAN), variance=variances)(image)
    if mode == "signed":
        return keras.layers.Rescaling(2.0, offset=-1.0)(image)
    pixels = keras.layers.Rescaling(255.0)(image)
    if mode == "caffe":
        return keras.applications.imagenet_utils.preprocess_input(pixels, mode="caffe")
    return pixels
