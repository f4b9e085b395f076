"""An exported model behind one method, wherever it runs."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_rpe.models.image_array import rgb_array
from keras_rpe.models.instances import Instances

# Rank of each table of a batch of one.
TABLES = {"labels": 3, "scores": 2, "boxes": 3, "classes": 2, "num_instances": 1}
_LONGEST_MESSAGE = 500


class ServedModel(ABC):
    """An exported model, opened by `load_served`: from a file, a folder or a server.

    Attributes:
        source: The path or address that it was opened from.
        takes_floats: Whether it takes images that are not uint8.
    """

    def __init__(self, source: str, takes_floats: bool) -> None:
        self.source = source
        self.takes_floats = takes_floats

    def predict_instances(self, image: Any) -> Instances:
        """Segment one image, with the result of `InstanceSegmenter.predict_instances`.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side; uint8, and any integer or float data type where `takes_floats`.

        Returns:
            The instances: label map, scores, boxes, classes.

        Raises:
            ValueError: If it is not one such image; if the model or its server refuses it, for the
                reason that it gives; or if the answer does not hold instances of this image.
            ConnectionError: If the server is not reachable, does not answer in time, or says that
                it cannot serve for now (HTTP 502 to 504, gRPC `UNAVAILABLE`).
        """
        pixels = rgb_array(image)
        dtype = np.asarray(image).dtype
        if dtype == np.uint8:
            pixels = pixels.astype(np.uint8)
        elif not self.takes_floats:
            raise ValueError(
                f"`image` must be uint8 for {self.source}: scale it to 0 to 255 and convert it "
                "with .astype('uint8'), or use a SavedModel, which takes all data types. "
                f"Received: dtype={dtype}"
            )
        tables = self.predict_tables(pixels[None])
        height, width = pixels.shape[:2]
        return Instances.from_tables(checked_tables(tables, height, width, self.source))

    @abstractmethod
    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Run the graph.

        Args:
            images: A batch of one, `(1, H, W, 3)`, uint8, or float32 where `takes_floats`.

        Returns:
            Its outputs by name, as they come.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"


def checked_tables(
    tables: Mapping[str, Any], height: int, width: int, source: str
) -> dict[str, np.ndarray]:
    """Let the instances of one image through if that is what they are.

    Args:
        tables: Arrays or nested lists by name, of a batch of one.
        height: Height of the image.
        width: Its width.
        source: Where they come from, for the message.

    Returns:
        `labels`, int32 `(1, H, W)`; `scores`, float32 `(1, n)`; `boxes`, int32 `(1, n, 4)`;
        `classes`, int32 `(1, n)`; `num_instances`, int32 `(1,)`.

    Raises:
        ValueError: If one is missing, or of another shape, data type or range of values.

    Example:
        >>> from keras_rpe.export.served_model import checked_tables
        >>> checked_tables({"scores": [[0.5]]}, 8, 8, "model.onnx")
        Traceback (most recent call last):
        ...
        ValueError: model.onnx must give the labels, scores, boxes, classes, num_instances of one
        image of 8 x 8 pixels, like the exports of keras_rpe. Received: no labels
    """
    try:
        arrays = {name: _table(tables, name) for name in TABLES}
        _check_shapes(arrays, height, width)
        count = int(arrays["num_instances"][0])
        labels = arrays["labels"]
        if not 0 <= count <= arrays["scores"].shape[1]:
            raise ValueError(f"num_instances={count}")
        if labels.min() < 0 or labels.max() > count:
            raise ValueError(f"labels from {labels.min()} to {labels.max()} of {count} instances")
    except ValueError as error:
        raise ValueError(
            f"{source} must give the {', '.join(TABLES)} of one image of {height} x {width} "
            f"pixels, like the exports of keras_rpe. Received: {error}"
        ) from None
    return arrays


def _table(tables: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in tables:
        raise ValueError(f"no {name}")
    try:
        array = np.asarray(tables[name])
    except ValueError:
        raise ValueError(f"{name} that are no array") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} of dtype={array.dtype}")
    with np.errstate(all="ignore"):
        result = array.astype(np.float32 if name == "scores" else np.int32)
        whole = name == "scores" or np.array_equal(result, array)
    if not whole or not np.isfinite(result).all():
        raise ValueError(f"{name} with values beyond its range")
    return result


def _check_shapes(arrays: Mapping[str, np.ndarray], height: int, width: int) -> None:
    rows = arrays["scores"].shape[-1] if arrays["scores"].ndim == TABLES["scores"] else 0
    expected = {
        "labels": (1, height, width),
        "scores": (1, rows),
        "boxes": (1, rows, 4),
        "classes": (1, rows),
        "num_instances": (1,),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} of shape={arrays[name].shape}")


def refusal(message: object) -> str:
    """Give the sentence of a graph that refused its input, without the trace around it.

    Args:
        message: An error, or its message.

    Returns:
        One line.

    Example:
        >>> from keras_rpe.export.served_model import refusal
        >>> refusal("assertion failed: [`image` is too large] [[{{node Assert}}]]")
        '`image` is too large'
    """
    text = str(message)
    found = re.search(r"assertion failed: \[(.*?)\]\s*(?:\[\[|$)", text, re.DOTALL)
    text = " ".join((found[1] if found else text).split())
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + " …"
