"""Networks of keras.applications with the weights that Keras downloads."""

from __future__ import annotations

from collections.abc import Callable

import keras


def with_imagenet_weights(name: str, build: Callable[[], keras.Model]) -> keras.Model:
    """Build a network whose weights Keras downloads, or say why it cannot be had.

    Args:
        name: Name of the backbone.
        build: Builds the network of keras.applications with `weights="imagenet"`.

    Returns:
        The network.

    Raises:
        ValueError: If the weights can neither be downloaded nor read from Keras' cache.

    Example:
        >>> from keras_rpe.models.backbones.imagenet_weights import with_imagenet_weights
        >>> with_imagenet_weights("vgg16", lambda: open("/no/network"))
        Traceback (most recent call last):
        ...
        ValueError: `weights='imagenet'` of vgg16 are downloaded by Keras, which failed
        ([Errno 2] No such file or directory: '/no/network'): pass the path of a weights file
        instead, such as weights='vgg16.weights.h5'. Received: weights='imagenet'
    """
    try:
        return build()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"`weights='imagenet'` of {name} are downloaded by Keras, which failed ({reason}): "
            f"pass the path of a weights file instead, such as weights='{name}.weights.h5'. "
            "Received: weights='imagenet'"
        ) from error


def no_imagenet_weights(name: str) -> ValueError:
    """The error of a backbone that has the weights of another framework.

    Args:
        name: Name of the backbone, one of torchvision.

    Returns:
        The error to raise.
    """
    return ValueError(
        f"`weights` of {name} must be None or the path of a file, such as the .pth file of "
        "torchvision. Received: weights='imagenet'"
    )
