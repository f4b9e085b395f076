"""A warning where the instances of the training images do not fit on the sphere."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import keras
from keras import ops

from keras_rpe.losses import CosineMarginLoss
from keras_rpe.margins import groups_upper_bound
from keras_rpe.ops import partition_windows, sample_nearest

Tensor = Any

_EVERY = 16  # Steps from one count to the next: a sort of a label map is nothing then.


class CapacityCheck:
    """Warn once if images have more groups than the margin loss can push apart.

    That is certain where groups that are all pairs of the loss are more than
    `keras_rpe.margins.groups_upper_bound`, and only then does it warn:

    - Without a neighborhood all groups of an image are pairs, instances and, where it is embedded,
      the background.
    - With one, those are counted that have a cell in the same square window whose diagonal is at
      most the neighborhood; windows do not overlap, so that not all such sets are found.
    - A rotation of the embedding with position does not matter: the loss compares what comes
      after it, which lies on the same sphere.

    Groups are counted inside the training step, at the first and every 16th after it, on the cells
    of the embedding map, and the largest count is read as often from outside of the graph: whatever
    the data come from, nothing is read twice. On the JAX backend, whose steps keep no such
    variable, there is no warning.

    Args:
        dim: Dimension D of the embedding.
        loss: The loss whose margin and neighborhood count.

    Example:
        >>> from keras_rpe.losses import CosineMarginLoss
        >>> from keras_rpe.models.capacity_check import CapacityCheck
        >>> check = CapacityCheck(2, CosineMarginLoss(margin=0.5))
        >>> check.most_groups
        4
    """

    def __init__(self, dim: int, loss: CosineMarginLoss) -> None:
        self.dim = dim
        self.margin = loss.margin
        self.neighborhood = loss.neighborhood
        self.most_groups = groups_upper_bound(dim, loss.margin)
        self._window: int | None = None
        if self.neighborhood is not None:
            # Corners of such a window are this far apart: (window - 1) · √2 cells.
            self._window = math.floor(self.neighborhood / math.sqrt(2.0)) + 1
        self._step = self._variable("step")
        self._seen = self._variable("seen")
        self._has_warned = False

    @classmethod
    def of_loss(cls, dim: int, loss: Any) -> CapacityCheck | None:
        """The check for what a model is compiled with, `None` where there is no margin loss."""
        if keras.backend.backend() == "jax":
            return None
        for part in keras.tree.flatten(loss):
            if isinstance(part, CosineMarginLoss) and part.negative_weight > 0.0:
                return cls(dim, part)
        return None

    def observe(self, labels: Tensor, embedding: Tensor, void: int) -> None:
        """Count the groups of a batch, in the graph of the training step.

        Args:
            labels: Instance maps `(batch, H, W)`.
            embedding: Embeddings `(batch, h, w, D)`, for the size of the map.
            void: Id of the pixels that are no group's.
        """
        step = self._step.value

        def count() -> Tensor:
            height, width = ops.shape(embedding)[1:3]
            return _most_groups(sample_nearest(labels, height, width), void, self._window)

        groups = ops.cond(step % _EVERY == 0, count, lambda: ops.zeros((), "int32"))
        self._seen.assign(ops.maximum(self._seen.value, groups))
        self._step.assign(step + 1)

    def after(self, train_function: Callable[..., Any]) -> Callable[..., Any]:
        """The training function of a model, which then warns if need be."""
        calls = 0

        @wraps(train_function)
        def train_and_check(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            result = train_function(*args, **kwargs)
            if calls % _EVERY == 0 and not self._has_warned:
                self._warn()
            calls += 1
            return result

        return train_and_check

    @property
    def seen_groups(self) -> int:
        """The largest count so far."""
        return int(self._seen + 0)  # a tensor also where the variable is one of several replicas

    def _warn(self) -> None:
        groups = self.seen_groups
        if groups <= self.most_groups:
            return
        self._has_warned = True
        where = "an image has"
        if self.neighborhood is not None:
            where = f"within neighborhood={self.neighborhood:g} of each other an image has"
        warnings.warn(
            f"embedding_dim={self.dim} and margin={self.margin:g} hold at most {self.most_groups} "
            f"groups, but {where} {groups}, so the margin loss cannot fall to 0; "
            f"embedding_dim={max(self.dim, math.ceil(groups / 2))} and "
            f"margin={max(self.margin, 0.5):g} would hold them.",
            UserWarning,
            stacklevel=3,
        )

    @staticmethod
    def _variable(name: str) -> keras.Variable:
        return keras.Variable(
            0, dtype="int32", trainable=False, aggregation="only_first_replica", name=name
        )


def _most_groups(labels: Tensor, void: int, window: int | None) -> Tensor:
    """The most different ids in a window of maps `(batch, h, w)`, or in one of the maps."""
    none = ops.zeros_like(labels)
    labels = ops.where(labels == void, none, ops.where(labels >= 0, labels + 1, labels))
    if window is None:
        lists = ops.reshape(labels, (ops.shape(labels)[0], -1))
    else:
        lists = partition_windows(ops.expand_dims(labels, -1), window)[0][..., 0]  # filled by 0
    lists = ops.sort(lists, axis=-1)
    is_first = ops.concatenate(
        [ops.ones_like(lists[:, :1], dtype="bool"), lists[:, 1:] != lists[:, :-1]], axis=1
    )
    return ops.max(ops.sum(ops.cast(is_first & (lists != 0), "int32"), axis=1))
