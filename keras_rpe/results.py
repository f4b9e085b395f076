"""What the models return for one image, and the checks of the images that they take."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from scipy.ndimage import find_objects

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.optional_import import optional_import

MIN_SIDE = 8
_NONE = (slice(0, 0), slice(0, 0))  # Of an instance without a pixel.


def rgb_array(image: Any) -> np.ndarray:
    """Check one image and give it three channels: float32 `(H, W, 3)`, values unchanged.

    It is `(H, W)` or `(H, W, 1)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA (the alpha is dropped),
    boolean, integers or floats of any finite range, and at least 8 pixels high and wide. Anything
    else raises a ValueError.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "`image` must be one image of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). "
            f"Received: shape={np.shape(image)}"
        )
    if min(array.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"`image` must be at least {MIN_SIDE} pixels high and wide. "
            f"Received: shape={np.shape(image)}"
        )
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"`image` must hold booleans, integers or floats. Received: dtype={array.dtype}"
        )
    with np.errstate(over="ignore"):  # What is too large is refused below.
        array = array[..., :3].astype("float32")
    if not np.isfinite(array).all():
        raise ValueError("`image` must be finite in float32. Received: NaN or infinite pixels")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def image_label_pairs(
    images: Iterable[Any], labels: Iterable[Any]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give images, as `rgb_array` makes them, and their integer maps `(H, W)`, one after the other.

    A ValueError is raised if there are no images, not as many label maps, or one does not fit.
    """
    count = 0
    for image, label in zip_longest(images, labels):
        if image is None or label is None:
            raise ValueError(
                "`images` and `labels` must be equally many. "
                f"Received: no {'image' if image is None else 'label map'} {count}"
            )
        array, truth = rgb_array(image), np.asarray(label)
        if truth.dtype.kind not in "bui":
            raise ValueError(f"`labels` must hold integers. Received: dtype={truth.dtype}")
        if array.shape[:2] != truth.shape:
            raise ValueError(
                "`labels` must be maps (H, W) of the sizes of the images. "
                f"Received: a map of shape {truth.shape} for an image of shape {array.shape}"
            )
        yield array, truth
        count += 1
    if not count:
        raise ValueError("`images` must hold at least one image. Received: none")


@dataclass(frozen=True)
class Instances:
    """Instances of one image.

    Attributes:
        labels: int32 `(H, W)`, 0 = background, instance k has the pixels equal to k.
        scores: float32 `(n,)`, the mean score of its class inside instance k at index k - 1, in
            [0, 1]; with one class that is the foreground score.
        boxes: int32 `(n, 4)`: first row, first column, last row + 1, last column + 1, in pixels.
        classes: int32 `(n,)`, class of the instance, from 1.
        diameter: The diameter of the objects, in pixels, as it was estimated or given; `None` from
            a model without one.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import Instances
        >>> labels = np.array([[0, 1], [1, 1]], "int32")
        >>> one = np.ones(1, "int32")
        >>> result = Instances(labels, np.array([0.9], "float32"), np.array([[0, 0, 2, 2]]), one)
        >>> len(result), result.areas.tolist()
        (1, [3])
    """

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    diameter: float | None = None

    @classmethod
    def from_tables(cls, tables: Mapping[str, np.ndarray]) -> Instances:
        """Take one image from the tables of a batch of one, as graphs give them.

        Args:
            tables: The arrays of `InstanceDecoder`, whose tables have a fixed length.

        Returns:
            The instances, without the empty rows. Of those for which the tables had no rows, about
            which a warning tells, the scores are NaN, the classes 0, and the boxes those of their
            pixels.
        """
        n, labels = int(tables["num_instances"][0]), tables["labels"][0]
        scores, boxes, classes = (tables[name][0, :n] for name in ("scores", "boxes", "classes"))
        if n > len(scores):
            warnings.warn(
                f"The image has {n} instances, and the model tables for {len(scores)}: the scores "
                "of the others are not known. Export a model with more `max_instances`.",
                stacklevel=3,
            )
            found = find_objects(np.where(labels > len(scores), labels - len(scores), 0))
            more = [[r.start, c.start, r.stop, c.stop] for r, c in (one or _NONE for one in found)]
            rest = n - len(scores)
            scores = np.pad(scores, (0, rest), constant_values=np.nan)
            boxes = np.concatenate([boxes, np.array(more, boxes.dtype).reshape(rest, 4)])
            classes = np.pad(classes, (0, rest))
        diameter = float(tables["diameter"][0]) if "diameter" in tables else 0.0
        return cls(labels, scores, boxes, classes, diameter or None)

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.scores)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each instance, int64 `(n,)`."""
        return np.bincount(self.labels.ravel(), minlength=len(self) + 1)[1:]

    @property
    def centroids(self) -> np.ndarray:
        """Mean row and column of the pixels of each instance, float64 `(n, 2)`; NaN without any."""
        flat = self.labels.ravel()
        sums = [
            np.bincount(flat, np.broadcast_to(places, self.labels.shape).ravel(), len(self) + 1)[1:]
            for places in np.ogrid[: self.labels.shape[0], : self.labels.shape[1]]
        ]
        areas = np.where(self.areas > 0, self.areas, np.nan)
        return np.stack(sums, axis=1) / areas[:, None]

    def measure(
        self, image: Any = None, pixel_size: float | None = None, shape: bool = True
    ) -> dict[str, np.ndarray]:
        """Measure each instance.

        Args:
            image: The image, `(H, W)` or `(H, W, C)` of any number of channels, for the mean and
                the maximum of each channel inside each instance.
            pixel_size: Side of a pixel in µm, for the same lengths and areas in µm and µm².
            shape: Whether to measure axes, perimeter and solidity, which takes longer.

        Returns:
            Arrays `(n,)` by name: `instance`, `class`, `score`, `area_px`, `centroid_row` and
            `centroid_column`, the box `top`, `left`, `bottom`, `right`, `major_axis_px` and
            `minor_axis_px` of the ellipse with the same second moments, `perimeter_px`,
            `solidity`, the share of the convex hull; `mean_1`, `max_1`, … of an image; `area_um2`,
            `major_axis_um`, `minor_axis_um` and `perimeter_um` with a pixel size. Those of an
            instance without pixels are NaN.

        Raises:
            ValueError: If the image has another size, or the pixel size is not positive.

        Example:
            >>> import numpy as np
            >>> from keras_rpe.models import Instances
            >>> one = np.ones(1, "int32")
            >>> boxes = np.array([[0, 0, 2, 4]])
            >>> found = Instances(np.ones((2, 4), "int32"), np.array([0.9]), boxes, one)
            >>> table = found.measure(np.full((2, 4), 7), pixel_size=0.5)
            >>> [float(table[name][0]) for name in ("area_px", "area_um2", "mean_1")]
            [8.0, 2.0, 7.0]
        """
        channels: np.ndarray | None = None
        if image is not None:
            channels = np.asarray(image)
            channels = channels[..., None] if channels.ndim == 2 else channels
            if channels.ndim != 3 or channels.shape[:2] != self.labels.shape:
                raise ValueError(
                    f"`image` must be of the size of the labels, {self.labels.shape}. "
                    f"Received: shape={np.shape(image)}"
                )
        if pixel_size is not None:
            check_number("pixel_size", pixel_size)
        table: dict[str, np.ndarray] = {
            "instance": np.arange(1, len(self) + 1),
            "class": self.classes,
            "score": self.scores,
            "area_px": self.areas,
            **dict(zip(("centroid_row", "centroid_column"), self.centroids.T)),
            **dict(zip(("top", "left", "bottom", "right"), self.boxes.reshape(-1, 4).T)),
        }
        names = [*_MEASURED] if shape else []
        names += [*_OF_CHANNELS] if channels is not None else []
        if names:
            # Imported here, as it takes a moment.
            from skimage.measure import regionprops_table

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of the hull of a line of pixels.
                found = regionprops_table(self.labels, channels, properties=["label", *names])
            there = found.pop("label") - 1
            for key, values in found.items():
                name, _, channel = key.partition("-")
                column = _MEASURED.get(name) or f"{_OF_CHANNELS[name]}_{int(channel or 0) + 1}"
                table[column] = np.full(len(self), np.nan)
                table[column][there] = values
        if pixel_size is not None:
            table["area_um2"] = self.areas * float(pixel_size) ** 2
            for name in [name for name in table if name.endswith("_px") and name != "area_px"]:
                table[f"{name.removesuffix('_px')}_um"] = table[name] * float(pixel_size)
        return table

    def to_dataframe(self, image: Any = None, pixel_size: float | None = None) -> Any:
        """Measure each instance, as a `pandas.DataFrame`.

        Args:
            image: As in `measure`.
            pixel_size: As in `measure`.

        Returns:
            A row for each instance.

        Raises:
            ImportError: If pandas is not installed.
            ValueError: As `measure`.

        Example:
            >>> import numpy as np
            >>> from keras_rpe.models import Instances
            >>> one = np.ones(1, "int32")
            >>> boxes = np.array([[0, 0, 2, 4]])
            >>> found = Instances(np.ones((2, 4), "int32"), np.array([0.9]), boxes, one)
            >>> found.to_dataframe()["area_px"].tolist()
            [8]
        """
        return optional_import("pandas", "tables").DataFrame(self.measure(image, pixel_size))


# What scikit-image measures, and the names of the columns.
_MEASURED = {
    "axis_major_length": "major_axis_px",
    "axis_minor_length": "minor_axis_px",
    "perimeter": "perimeter_px",
    "solidity": "solidity",
}
_OF_CHANNELS = {"intensity_mean": "mean", "intensity_max": "max"}


@dataclass(frozen=True)
class Proposals:
    """Masks of what may be objects in one image, the likeliest first. They may overlap.

    Attributes:
        masks: Boolean `(n, H, W)`.
        scores: float32 `(n,)` in [0, 1], falling.
        boxes: int32 `(n, 4)`: first row, first column, last row + 1, last column + 1, in pixels.

    Source:
        Kong & Fowlkes (CVPR 2018), section 4: object proposals.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import Proposals
        >>> masks = np.array([[[True, True], [False, False]]])
        >>> proposals = Proposals(masks, np.array([0.9], "float32"), np.array([[0, 0, 1, 2]]))
        >>> len(proposals), proposals.areas.tolist()
        (1, [2])
    """

    masks: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray

    @classmethod
    def from_tables(
        cls, tables: Mapping[str, np.ndarray], max_proposals: int | None = None
    ) -> Proposals:
        """Take one image from the tables of a batch of one, as graphs give them.

        Args:
            tables: The arrays of `ObjectProposer.serve`.
            max_proposals: Proposals at most; default: all.

        Returns:
            The proposals.

        Raises:
            ValueError: If `max_proposals` is not a positive integer.
        """
        check_max_proposals(max_proposals)
        n = int(tables["num_proposals"][0])
        n = n if max_proposals is None else min(n, max_proposals)
        maps = tables["label_maps"][0]
        masks = np.zeros((n, *maps.shape[:2]), bool)
        for k, (scale, number) in enumerate(zip(tables["scales"][0, :n], tables["ids"][0, :n])):
            masks[k] = maps[..., scale] == number
        return cls(masks, tables["scores"][0, :n], tables["boxes"][0, :n])

    def __len__(self) -> int:
        """Number of proposals."""
        return len(self.scores)

    @property
    def ranks(self) -> np.ndarray:
        """The best proposal of each pixel, int32 `(H, W)`: 1 is the best of all, 0 is none."""
        if not len(self):
            return np.zeros(self.masks.shape[1:], "int32")
        return np.where(self.masks.any(axis=0), self.masks.argmax(axis=0) + 1, 0).astype("int32")

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each proposal, int64 `(n,)`."""
        return self.masks.sum(axis=(1, 2), dtype="int64")


def check_max_proposals(max_proposals: int | None) -> None:
    """Raise a ValueError if a number of proposals is neither `None` nor a positive integer."""
    if max_proposals is not None:
        check_integer("max_proposals", max_proposals)


@dataclass(frozen=True)
class Boundaries:
    """Boundaries of one image.

    Attributes:
        probabilities: float32 `(H, W)`, how likely each pixel is a boundary, in [0, 1].
        thinned: float32 `(H, W)`, the same on the crests, and 0 elsewhere.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import Boundaries
        >>> found = Boundaries(np.array([[0.2, 0.9, 0.3]]), np.array([[0.0, 0.9, 0.0]]))
        >>> (found.thinned > 0.5).tolist()
        [[False, True, False]]
    """

    probabilities: np.ndarray
    thinned: np.ndarray


@dataclass(frozen=True)
class ClassMap:
    """The class of each pixel of one image.

    Attributes:
        classes: int32 `(H, W)`, 0 = background.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import ClassMap
        >>> found = ClassMap(np.array([[0, 2], [2, 2]], "int32"))
        >>> found.areas
        {0: 1, 2: 3}
    """

    classes: np.ndarray

    @property
    def areas(self) -> dict[int, int]:
        """Pixels of each class that is present."""
        values, counts = np.unique(self.classes, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist()))
