"""An exported model behind one method, wherever it runs."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_rpe.export.served_tables import checked_classes, checked_proposals, checked_tables
from keras_rpe.models.image_array import rgb_array
from keras_rpe.models.instances import Instances
from keras_rpe.models.proposals import Proposals, check_max_proposals

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
        tables, height, width = self._answer(image)
        return Instances.from_tables(checked_tables(tables, height, width, self.source))

    def propose(self, image: Any, max_proposals: int | None = None) -> Proposals:
        """Propose masks of objects in one image, with the result of `ObjectProposer.propose`.

        Args:
            image: As `predict_instances` takes it.
            max_proposals: The best so many; default: all that the model gives.

        Returns:
            Masks, scores and boxes, the best first.

        Raises:
            ValueError: As `predict_instances`, or if `max_proposals` is no positive integer.
            ConnectionError: As `predict_instances`.
        """
        check_max_proposals(max_proposals)
        tables, height, width = self._answer(image)
        checked = checked_proposals(tables, height, width, self.source)
        return Proposals.from_tables(checked, max_proposals)

    def predict_classes(self, image: Any) -> np.ndarray:
        """Classify the pixels of one image, as `SemanticSegmenter.predict_classes` does.

        Args:
            image: As `predict_instances` takes it.

        Returns:
            The class map, int32 `(H, W)`, 0 = background.

        Raises:
            ValueError: As `predict_instances`.
            ConnectionError: As `predict_instances`.
        """
        tables, height, width = self._answer(image)
        return checked_classes(tables, height, width, self.source)

    def _answer(self, image: Any) -> tuple[Mapping[str, Any], int, int]:
        """The outputs for one image, and its height and width."""
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
        return self.predict_tables(pixels[None]), *pixels.shape[:2]

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
