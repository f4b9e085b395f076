"""From embeddings and class scores to instances."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.ops.backend import take
from keras_rpe.ops.labels import (
    NEIGHBORS,
    connected_components,
    consecutive,
    embedding_links,
    grow_labels,
    instance_boxes,
    label_areas,
    number_labels,
    shift_map,
)
from keras_rpe.ops.maps import at_least_float32, enlarge_labels, resample, sample_nearest

Tensor = Any

_MAX_INSTANCES = 1_000_000  # The tables are of this length, whatever is in the image.


@keras.saving.register_keras_serializable(package="keras_rpe")
class InstanceDecoder(keras.layers.Layer):
    """Read the instances off embeddings that mean shift has moved to their modes.

    An instance is a connected component of foreground pixels whose neighbors' embeddings agree.
    So touching objects come apart by their embeddings, like objects that do not touch by their
    place, and the number of instances is not bounded by the dimension of the sphere. Pixels that
    agree with none of their neighbors, on the seams between objects, go to the object beside
    them. All steps are graph ops of fixed shapes, without a gradient.

    Args:
        foreground_threshold: Least foreground score of a pixel of an instance, in (0, 1).
        similarity_threshold: Least calibrated cosine similarity (1 + cos)/2, in [0, 1], at which
            neighboring pixels belong together.
        score_threshold: Instances of a lower score, in [0, 1], are dropped.
        min_area: Instances of fewer pixels are dropped.
        fragment_area: Of fewer pixels, a component that touches a larger one is taken for a
            fragment of it, and one that stands by itself for an instance; `None`: as `min_area`.
        max_instances: Length of the tables of scores, boxes and classes.
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        embeddings: Unit embeddings, `(batch, h, w, D)`.
        scores: Foreground scores in [0, 1], `(batch, H, W)` or `(batch, H, W, C)` with one channel
            for each class other than the background, whose sum is the foreground score; h and w
            may be a whole fraction of H and W.
        foreground_threshold, similarity_threshold, score_threshold, min_area, fragment_area: In
            place of those of the layer in this call, numbers or scalar tensors; the former two also
            `(batch, 1, 1)`.
        max_instances: In place of that of the layer in this call.
        size: Height and width of the labels, if they are not those of the scores.
        step: Side of a pixel of the labels in pixels of the scores, `(batch,)`, with `size`; areas
            are counted in pixels of the scores.
        start: Row and column where the labels begin, in pixels of the scores, `(batch, 2)`, with
            `step`; default: 0.
        region: Boolean, `(batch, h, w)`: only these pixels of the embeddings make up instances.
            Those beside the region go to what they are linked to in it, or stand for themselves, so
            that edges are as without it. With it, the result has `cells` too, int32
            `(batch, h, w)`, the labels of these pixels, and scores are the means in the region.

    Returns of a call:
        A dictionary of `labels`, int32 `(batch, H, W)`, 0 = background, instances numbered from 1,
        all of them, however many; `num_instances`, int32 `(batch,)`, how many there are;
        `scores`, float32 `(batch, max_instances)`, the mean score of its class inside instance k
        at index k - 1, with one class the foreground score; `boxes`, int32
        `(batch, max_instances, 4)`, first row, first column, last row + 1, last column + 1, in
        pixels; `classes`, int32 `(batch, max_instances)`, from 1, by the mean class score inside.
        The tables are 0 beyond `num_instances`. Where there are more instances than rows, those
        with the highest foreground scores have the numbers of the rows.

    Raises:
        ValueError: If an argument is out of its range or an input has the wrong rank.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import InstanceDecoder
        >>> x = np.zeros((1, 8, 8, 2), "float32")
        >>> x[:, :, :4, 0], x[:, :, 4:, 1] = 1, 1  # two halves, orthogonal
        >>> result = InstanceDecoder(min_area=4)(x, np.ones((1, 8, 8), "float32"))
        >>> result["labels"][0, 0].numpy().tolist(), result["boxes"][0, :2].numpy().tolist()
        ([1, 1, 1, 1, 2, 2, 2, 2], [[0, 0, 8, 4], [0, 4, 8, 8]])
    """

    def __init__(
        self,
        foreground_threshold: float = 0.5,
        similarity_threshold: float = 0.96,
        min_area: int = 16,
        max_instances: int = 1024,
        fragment_area: int | None = None,
        score_threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # A step in 16 bits would move edges.
        self.foreground_threshold = check_number(
            "foreground_threshold", foreground_threshold, "[0, 1]"
        )
        self.similarity_threshold = check_number(
            "similarity_threshold", similarity_threshold, "[0, 1]"
        )
        self.score_threshold = check_number("score_threshold", score_threshold, "[0, 1]")
        self.min_area = check_integer("min_area", min_area, 0)
        self.fragment_area = fragment_area
        if fragment_area is not None:
            self.fragment_area = check_integer("fragment_area", fragment_area, 0)
        self.max_instances = check_integer("max_instances", max_instances, 1, _MAX_INSTANCES)

    def call(
        self,
        embeddings: Tensor,
        scores: Tensor,
        foreground_threshold: Tensor | float | None = None,
        similarity_threshold: Tensor | float | None = None,
        score_threshold: Tensor | float | None = None,
        min_area: Tensor | int | None = None,
        fragment_area: Tensor | int | None = None,
        max_instances: int | None = None,
        size: tuple[Tensor | int, Tensor | int] | None = None,
        step: Tensor | None = None,
        start: Tensor | None = None,
        region: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the instances of a batch of images."""
        foreground_threshold = _given(foreground_threshold, self.foreground_threshold)
        similarity = _given(similarity_threshold, self.similarity_threshold)
        least = ops.cast(_given(min_area, self.min_area), "int32")
        fragment = _given(_given(fragment_area, self.fragment_area), least)
        _check_ranks(embeddings.shape, scores.shape)
        x, scores = at_least_float32(embeddings), at_least_float32(scores)
        x, scores = ops.stop_gradient(x), ops.stop_gradient(scores)
        class_scores = ops.expand_dims(scores, -1) if len(scores.shape) == 3 else scores
        score = ops.sum(class_scores, axis=-1)
        fragment = ops.cast(fragment, "int32")
        cells, cell = _foreground_cells(x, score, foreground_threshold)
        inside = cells
        if region is not None:
            inside = ops.logical_and(cells, region)
            cells = ops.logical_and(cells, _widened(region))
        components = connected_components(cells, embedding_links(x, inside, similarity))
        if region is not None:
            components = _joined_from_beside(
                components, inside, embedding_links(x, cells, similarity)
            )
        labels = _without_specks(components, fragment, cell**2)
        # Seams and fragments are filled from all sides.
        labels = grow_labels(labels, cells)
        # What growing has not reached touches nothing larger, and is no fragment.
        labels += components * ops.cast(labels == 0, "int32")
        # Tables are as long as there are cells: the fewer names, the less time they take.
        batch, high, wide = ops.shape(labels)[:3]
        names = high * wide
        first = ops.reshape(ops.arange(batch, dtype="int32") * names, (-1, 1, 1))
        named = consecutive(labels) + first * ops.cast(labels > 0, "int32")
        area: Any = ops.cast(least, "float32")  # In pixels of the labels.
        weights: Any = None
        if size is None or step is None:
            labels = sample_nearest(named, ops.shape(score)[1], ops.shape(score)[2])
            if region is not None:
                own = ops.cast(region, "float32")
                weights = sample_nearest(own, ops.shape(score)[1], ops.shape(score)[2])
        else:
            side = ops.cast(cell, step.dtype)
            begin = None if start is None else start / side
            labels = enlarge_labels(named, step / side, *size, begin)
            class_scores = resample(class_scores, step, *size, start, enlarges=True)
            if region is not None:
                own = ops.cast(ops.expand_dims(region, -1), "float32")
                weights = resample(own, step / side, *size, begin, enlarges=True)[..., 0]
            score = ops.sum(class_scores, axis=-1)
            area = area / ops.reshape(ops.square(step), (-1, 1))
        seen = labels * ops.cast(score >= foreground_threshold, "int32")
        rows = _given(max_instances, self.max_instances)
        least_score = ops.cast(_given(score_threshold, self.score_threshold), "float32")
        labels, count, class_means = number_labels(
            seen, class_scores, rows, names, area, least_score, weights
        )
        in_tables = labels * ops.cast(labels <= rows, "int32")
        there = ops.arange(1, rows + 1) <= ops.expand_dims(count, -1)
        # Keras' argmax compares bit patterns, for which mobile runtimes have no operator.
        best_means, best = ops.top_k(class_means, 1)
        classes = ops.cast(best[..., 0], "int32") + 1
        there_too = {} if region is None else {"cells": _numbered(named, seen, labels, names)}
        return {
            **there_too,
            "labels": labels,
            "scores": ops.cast(best_means[..., 0], "float32"),
            "boxes": instance_boxes(in_tables, rows),
            "classes": classes * ops.cast(there, "int32"),
            "num_instances": count,
        }

    def compute_output_shape(
        self, embeddings_shape: tuple[int | None, ...], scores_shape: tuple[int | None, ...]
    ) -> dict[str, tuple[int | None, ...]]:
        """Shapes of the result."""
        batch, table = scores_shape[0], (scores_shape[0], self.max_instances)
        return {
            "labels": tuple(scores_shape[:3]),
            "scores": table,
            "boxes": (*table, 4),
            "classes": table,
            "num_instances": (batch,),
        }

    def compute_output_spec(
        self, embeddings: keras.KerasTensor, scores: keras.KerasTensor, **thresholds: Any
    ) -> dict[str, keras.KerasTensor]:
        """Shapes and dtypes of the result, which are not those of the inputs."""
        _check_ranks(embeddings.shape, scores.shape)
        shapes = self.compute_output_shape(embeddings.shape, scores.shape)
        return {
            name: keras.KerasTensor(shape, dtype="float32" if name == "scores" else "int32")
            for name, shape in shapes.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {
            **super().get_config(),
            "foreground_threshold": self.foreground_threshold,
            "similarity_threshold": self.similarity_threshold,
            "score_threshold": self.score_threshold,
            "min_area": self.min_area,
            "max_instances": self.max_instances,
            "fragment_area": self.fragment_area,
        }


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _foreground_cells(
    x: Tensor, score: Tensor, threshold: Tensor | float
) -> tuple[Tensor, Tensor | int]:
    """Which cells are foreground, and the side of a cell in pixels."""
    h, w = ops.shape(x)[1], ops.shape(x)[2]
    height, width = ops.shape(score)[1], ops.shape(score)[2]
    # A cell is foreground if any of its pixels is: lines are as thin as a pixel.
    cells = ops.reshape(score, (-1, h, height // h, w, width // w))
    return ops.max(cells, axis=(2, 4)) >= threshold, height // h


def _widened(region: Tensor) -> Tensor:
    """A region with the cells beside it."""
    there = ops.cast(region, "int32")
    beside = [shift_map(there, s * row, s * column) for row, column in NEIGHBORS for s in (1, -1)]
    return sum(beside, there) > 0


def _joined_from_beside(labels: Tensor, inside: Tensor, links: list[Tensor]) -> Tensor:
    """Give cells outside a region the label of a cell in it to which they are linked."""
    own = labels * ops.cast(inside, "int32")
    most = ops.zeros_like(labels)
    for link, (row, column) in zip(links, NEIGHBORS):
        there = ops.cast(link, "int32")
        after = there * shift_map(own, row, column)
        before = shift_map(there * own, -row, -column)
        most = ops.maximum(most, ops.maximum(after, before))
    outside = ops.logical_and(ops.logical_not(inside), most > 0)
    return ops.where(outside, most, labels)


def _numbered(cells: Tensor, seen: Tensor, labels: Tensor, names: Tensor | int) -> Tensor:
    """Cells with the labels that pixels of their names have; so many names are in an image."""
    size = ops.shape(cells)[0] * names + 1
    flat = ops.reshape(labels, (-1,))
    numbers = ops.segment_max(flat, ops.reshape(seen, (-1,)), size)
    return take(ops.maximum(numbers, 0), cells, axis=0) * ops.cast(cells > 0, "int32")


def _without_specks(labels: Tensor, least: Tensor, cell: Tensor | float) -> Tensor:
    area = ops.cast(label_areas(labels), "float32") * ops.cast(cell, "float32")
    return labels * ops.cast(area >= ops.cast(least, "float32"), "int32")


def _check_ranks(embeddings: tuple[int | None, ...], scores: tuple[int | None, ...]) -> None:
    if len(embeddings) != 4 or len(scores) not in (3, 4):
        raise ValueError(
            "InstanceDecoder takes embeddings (batch, h, w, D) and scores (batch, H, W) or "
            f"(batch, H, W, C). Received: shapes {tuple(embeddings)} and {tuple(scores)}"
        )
