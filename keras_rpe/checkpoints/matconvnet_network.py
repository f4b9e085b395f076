"""A network as a MatConvNet checkpoint holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from keras_rpe.checkpoints.matconvnet_layer import MatConvNetLayer


@dataclass
class MatConvNetNetwork:
    """The layers and the parameters of a DagNN.

    Attributes:
        layers: The layers in the order of the file.
        params: float32 arrays by name. Filters are `(H, W, in, out)`, biases and gains `(C,)`, and
            moments `(C, 2)`: the mean and the square root of the variance plus epsilon.
        average_image: What is subtracted from images, `(3,)` or `(H, W, 3)`, or `None`.

    Example:
        >>> from keras_rpe.checkpoints import MatConvNetNetwork
        >>> MatConvNetNetwork().average_image is None
        True
    """

    layers: list[MatConvNetLayer] = field(default_factory=list)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    average_image: np.ndarray | None = None
