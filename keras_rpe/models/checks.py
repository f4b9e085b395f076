"""Checks of the labels during training."""

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
        >>> from keras_rpe.models.checks import CapacityCheck
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


class ClassCheck:
    """Raise if the class maps of training hold a class that the model does not have.

    Such pixels count in no loss, where backends would give NaN or an error of their own. The lowest
    and the highest class are kept inside the training step, and read from outside of the graph
    after the first step and every 16th; with several replicas, those of the first. On the JAX
    backend, whose steps keep no such variable, nothing is raised.

    Args:
        num_classes: Classes of the model other than the background.
        void: Class of the pixels that no loss counts.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.checks import ClassCheck
        >>> check = ClassCheck(num_classes=2, void=-1)
        >>> check.observe(np.array([[[0, 2, 3]]])).numpy().tolist()
        [[[0, 2, -1]]]
        >>> check.raise_if_wrong()
        Traceback (most recent call last):
        ...
        ValueError: The class maps must hold 0 to num_classes=2, or `ignore_label`. Received: 3
    """

    def __init__(self, num_classes: int, void: int) -> None:
        self.num_classes = num_classes
        self.void = void
        self._keeps = keras.backend.backend() != "jax"
        self._lowest = self._variable("lowest_class")
        self._highest = self._variable("highest_class")

    def observe(self, classes: Tensor) -> Tensor:
        """Look at a batch, in the graph of the training step.

        Args:
            classes: Class maps, integers `(batch, H, W)`.

        Returns:
            The maps, where what is no class is void.
        """
        classes = ops.convert_to_tensor(classes)
        known = ops.where(classes == self.void, ops.zeros_like(classes), classes)
        if self._keeps:
            lowest, highest = (ops.cast(ops.min(known), "int32"), ops.cast(ops.max(known), "int32"))
            self._lowest.assign(ops.minimum(self._lowest.value, lowest))
            self._highest.assign(ops.maximum(self._highest.value, highest))
        wrong = (known < 0) | (known > self.num_classes)
        return ops.where(wrong, ops.full_like(classes, self.void), classes)

    def after(self, train_function: Callable[..., Any]) -> Callable[..., Any]:
        """The training function of a model, which then raises if need be."""
        calls = 0

        @wraps(train_function)
        def train_and_check(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            result = train_function(*args, **kwargs)
            if calls % _EVERY == 0:
                self.raise_if_wrong()
            calls += 1
            return result

        return train_and_check

    def raise_if_wrong(self) -> None:
        """Raise if a map had a number that is no class.

        Raises:
            ValueError: If one had.
        """
        # Tensors also where the variables are some of several replicas.
        lowest, highest = int(self._lowest + 0), int(self._highest + 0)
        if lowest < 0 or highest > self.num_classes:
            self._lowest.assign(0)  # The next training may have other maps.
            self._highest.assign(0)
            raise ValueError(
                f"The class maps must hold 0 to num_classes={self.num_classes}, or `ignore_label`. "
                f"Received: {highest if highest > self.num_classes else lowest}"
            )

    @staticmethod
    def _variable(name: str) -> keras.Variable:
        return keras.Variable(
            0, dtype="int32", trainable=False, aggregation="only_first_replica", name=name
        )
