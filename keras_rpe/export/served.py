"""What an exported model gives, wherever it runs."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_rpe.arguments import check_number
from keras_rpe.results import (
    Boundaries,
    ClassMap,
    Instances,
    Proposals,
    check_max_proposals,
    rgb_array,
)

# The outputs of each task for one image, and their shapes: H and W are the sides of the image, n
# the rows of the tables, m the number of label maps.
_LAYOUTS: dict[str, dict[str, str]] = {
    "instances": {
        "labels": "HW",
        "scores": "n",
        "boxes": "n4",
        "classes": "n",
        "num_instances": "",
        "diameter": "",
    },
    "proposals": {
        "label_maps": "HWm",
        "scores": "n",
        "scales": "n",
        "ids": "n",
        "boxes": "n4",
        "num_proposals": "",
    },
    "boundaries": {"boundaries": "HW", "thin": "HW"},
    "classes": {"classes": "HW"},
}
OUTPUTS = {name for layout in _LAYOUTS.values() for name in layout}
MAX_SCALES = 32
_FLOATS = {"scores", "boundaries", "thin", "diameter"}
_OPTIONAL = {"diameter"}  # Models that were exported earlier do not give it.


def checked_tables(
    task: str, tables: Mapping[str, Any], size: tuple[int, int], source: str
) -> dict[str, np.ndarray]:
    """Check what a file, or a server that may be anyone's, gave for one image."""
    layout = {
        name: dims
        for name, dims in _LAYOUTS[task].items()
        if name in tables or name not in _OPTIONAL
    }
    try:
        arrays = {name: _array(tables, name) for name in layout}
        rows, maps = (
            arrays[name].shape[-1] if name in arrays and arrays[name].ndim else 0
            for name in ("scores", "label_maps")
        )
        sizes = {"H": size[0], "W": size[1], "n": rows, "m": min(maps, MAX_SCALES), "4": 4}
        for name, array in arrays.items():
            if array.shape != (1, *(sizes[dim] for dim in layout[name])):
                raise ValueError(f"{name} of shape={array.shape}")
        _check_values(task, arrays)
    except ValueError as error:
        raise ValueError(
            f"{source} must give the {', '.join(layout)} of one image of {size[0]} x {size[1]} "
            f"pixels, like the exports of keras_rpe. Received: {error}"
        ) from None
    return arrays


def _array(tables: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in tables:
        raise ValueError(f"no {name}")
    try:
        array = np.asarray(tables[name])
    except ValueError:
        raise ValueError(f"{name} that are not an array") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} of dtype={array.dtype}")
    with np.errstate(all="ignore"):
        result = array.astype(np.float32 if name in _FLOATS else np.int32)
        is_same = name in _FLOATS or np.array_equal(result, array)
    if not is_same or not np.isfinite(result).all():
        raise ValueError(f"{name} with values beyond its range")
    return result


def _check_values(task: str, arrays: Mapping[str, np.ndarray]) -> None:
    def check(name: str, low: float, high: float = np.inf, rows: int | None = None) -> None:
        values = arrays[name] if rows is None else arrays[name][0, :rows]
        if values.size and not (values.min() >= low and values.max() <= high):
            raise ValueError(f"{name} from {values.min()} to {values.max()}")

    if task == "boundaries":
        check("boundaries", 0, 1)
        check("thin", 0, 1)
    elif task == "classes":
        check("classes", 0)
    elif task == "instances":
        # More than the tables have rows for are all in the map.
        check("num_instances", 0, max(arrays["scores"].size, arrays["labels"].max()))
        check("labels", 0, arrays["num_instances"][0])
        if "diameter" in arrays:
            check("diameter", 0)
    else:
        check("num_proposals", 0, arrays["scores"].size)
        count = int(arrays["num_proposals"][0])
        check("scales", 0, arrays["label_maps"].shape[-1] - 1, rows=count)
        check("ids", 1, rows=count)


class ServedModel(ABC):
    """An exported model, opened by `load_served`: from a file, a folder or a server.

    Which of its methods can be used depends on the task of the model that was exported.

    Attributes:
        source: The path or address that it was opened from.
        takes_floats: Whether it takes images that are not uint8.
    """

    def __init__(self, source: str, takes_floats: bool) -> None:
        self.source = source
        self.takes_floats = takes_floats

    def predict_instances(self, image: Any, diameter: float | str = "auto") -> Instances:
        """Segment one image, with the result of `InstanceSegmenter.predict_instances`.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side; uint8, and any integer or float data type where `takes_floats`.
            diameter: That of the objects, √(4 area / π) in pixels, or "auto", which estimates it.

        Returns:
            The instances: label map, scores, boxes, classes, and the diameter.

        Raises:
            ValueError: If it is not one such image; if the diameter is neither "auto" nor positive,
                or is given and the model takes none; if the model or its server refuses the image,
                for the reason that it gives; or if the answer does not hold instances of it.
            ConnectionError: If the server is not reachable, does not answer in time, or says that
                it cannot serve for now (HTTP 502 to 504, gRPC `UNAVAILABLE`).
        """
        given = None if diameter == "auto" else check_number("diameter", diameter)
        return Instances.from_tables(self._answer("instances", image, given))

    def predict_proposals(self, image: Any, max_proposals: int | None = None) -> Proposals:
        """Propose masks of objects, with the result of `ObjectProposer.predict_proposals`.

        Args:
            image: As `predict_instances` takes it.
            max_proposals: The best so many; default: all that the model gives.

        Returns:
            Masks, scores and boxes, the best first.

        Raises:
            ValueError: As `predict_instances`, or if `max_proposals` is not a positive integer.
            ConnectionError: As `predict_instances`.
        """
        check_max_proposals(max_proposals)
        return Proposals.from_tables(self._answer("proposals", image), max_proposals)

    def predict_boundaries(self, image: Any) -> Boundaries:
        """Detect boundaries, with the result of `BoundaryDetector.predict_boundaries`.

        Args:
            image: As `predict_instances` takes it.

        Returns:
            The probability of a boundary at each pixel, and the same thinned.

        Raises:
            ValueError: As `predict_instances`.
            ConnectionError: As `predict_instances`.
        """
        tables = self._answer("boundaries", image)
        return Boundaries(tables["boundaries"][0], tables["thin"][0])

    def predict_classes(self, image: Any) -> ClassMap:
        """Classify the pixels, with the result of `SemanticSegmenter.predict_classes`.

        Args:
            image: As `predict_instances` takes it.

        Returns:
            The class of each pixel, 0 = background.

        Raises:
            ValueError: As `predict_instances`.
            ConnectionError: As `predict_instances`.
        """
        return ClassMap(self._answer("classes", image)["classes"][0])

    def _answer(
        self, task: str, image: Any, diameter: float | None = None
    ) -> dict[str, np.ndarray]:
        """The checked outputs for one image."""
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
        tables = self.predict_tables(pixels[None], diameter)
        return checked_tables(task, tables, (pixels.shape[0], pixels.shape[1]), self.source)

    @abstractmethod
    def predict_tables(
        self, images: np.ndarray, diameter: float | None = None
    ) -> Mapping[str, Any]:
        """Run the graph.

        Args:
            images: A batch of one, `(1, H, W, 3)`, uint8, or float32 where `takes_floats`.
            diameter: That of the objects, in pixels; `None`: the graph estimates it.

        Returns:
            Its outputs by name, as they come.
        """

    def _takes_no_diameter(self) -> ValueError:
        return ValueError(f"`diameter` must be 'auto' for {self.source}, which takes none.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"


def one_sentence(message: object) -> str:
    """An error as one line, without TensorFlow's account of where in the graph it was raised."""
    text = str(message)
    found = re.search(r"assertion failed: \[(.*?)\]\s*(?:\[\[|$)", text, re.DOTALL)
    text = " ".join((found[1] if found else text).split())
    return text if len(text) <= 500 else text[:500] + " …"
