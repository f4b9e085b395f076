"""Checks of the labels, made while a model trains."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any

import keras
from keras import ops

from keras_rpe.losses import CosineMarginLoss
from keras_rpe.margins import groups_upper_bound
from keras_rpe.ops.maps import partition_windows, sample_nearest

Tensor = Any
Targets = dict[str, Tensor]

VOID = -1  # Id of the pixels that no loss counts, whatever id the user's maps have for them.
_EVERY = 16  # Steps from one report to the next: the cost of sorting a label map is lost in them.


class LabelCheck(ABC):
    """Base of the checks: `observe` is part of the training step, `report` runs outside the graph.

    What a step finds is kept in variables that are not the model's, and `report` reads them after
    the first step and every 16th after it. Steps of the JAX backend cannot keep such variables, so
    nothing is reported there.
    """

    keeps_variables = keras.backend.backend() != "jax"

    @abstractmethod
    def observe(self, targets: Targets, y_pred: Targets) -> Targets:
        """Look at a batch, in the graph of the training step, and return its targets."""

    @abstractmethod
    def report(self) -> None:
        """Warn or raise, by what the steps have kept so far."""

    def after(self, train_function: Callable[..., Any]) -> Callable[..., Any]:
        """The training function of a model, with this check after it."""
        calls = 0

        @wraps(train_function)
        def train_and_check(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            result = train_function(*args, **kwargs)
            if calls % _EVERY == 0:
                self.report()
            calls += 1
            return result

        return train_and_check


class CapacityCheck(LabelCheck):
    """Warn once if images have more groups than the margin loss can push apart.

    That is certain where more groups than `keras_rpe.margins.groups_upper_bound` are all pairs of
    the loss, and only then does it warn:

    - Without a neighborhood, all groups of an image are pairs: its instances and, where it is
      embedded, the background.
    - With one, it counts the groups that have a cell in the same square window whose diagonal is at
      most the neighborhood. The windows do not overlap, so it does not find all such sets.

    Groups are counted on the cells of the embedding map, at the first step and every 16th after it.
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
        self._step = _variable("step")
        self._seen = _variable("seen")
        self._has_warned = False

    @classmethod
    def of_loss(cls, dim: int, loss: Any) -> CapacityCheck | None:
        """The check for what a model is compiled with, `None` where there is no margin loss."""
        for part in keras.tree.flatten(loss):
            if isinstance(part, CosineMarginLoss) and part.negative_weight > 0.0:
                return cls(dim, part) if cls.keeps_variables else None
        return None

    def observe(self, targets: Targets, y_pred: Targets) -> Targets:
        """Count the groups of a batch, in the graph of the training step."""
        step = self._step.value

        def count() -> Tensor:
            height, width = ops.shape(y_pred["embedding"])[1:3]
            return _most_groups(sample_nearest(targets["embedding"], height, width), self._window)

        groups = ops.cond(step % _EVERY == 0, count, lambda: ops.zeros((), "int32"))
        self._seen.assign(ops.maximum(self._seen.value, groups))
        self._step.assign(step + 1)
        return targets

    @property
    def seen_groups(self) -> int:
        """The largest count so far."""
        return int(self._seen + 0)  # a tensor also where the variable is one of several replicas

    def report(self) -> None:
        """Warn, once, if there were too many groups."""
        groups = self.seen_groups
        if self._has_warned or groups <= self.most_groups:
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


def _most_groups(labels: Tensor, window: int | None) -> Tensor:
    """The most different ids in a window of maps `(batch, h, w)`, or in one of the maps."""
    # 0 is free for void, which is also what fills the windows.
    void = ops.zeros_like(labels)
    labels = ops.where(labels == VOID, void, ops.where(labels >= 0, labels + 1, labels))
    if window is None:
        lists = ops.reshape(labels, (ops.shape(labels)[0], -1))
    else:
        lists = partition_windows(ops.expand_dims(labels, -1), window)[0][..., 0]
    lists = ops.sort(lists, axis=-1)
    is_first = ops.concatenate(
        [ops.ones_like(lists[:, :1], dtype="bool"), lists[:, 1:] != lists[:, :-1]], axis=1
    )
    return ops.max(ops.sum(ops.cast(is_first & (lists != 0), "int32"), axis=1))


class ClassCheck(LabelCheck):
    """Raise if the class maps of training hold a class that the model does not have.

    Such pixels become void, where backends would give NaN or an error of their own. With several
    replicas, those of the first are reported.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._lowest = _variable("lowest_class")
        self._highest = _variable("highest_class")

    def observe(self, targets: Targets, y_pred: Targets) -> Targets:
        """Keep the lowest and highest class of a batch, and make all other numbers void."""
        classes = ops.convert_to_tensor(targets["semantic"])
        known = ops.where(classes == VOID, ops.zeros_like(classes), classes)
        if self.keeps_variables:
            lowest, highest = (ops.cast(ops.min(known), "int32"), ops.cast(ops.max(known), "int32"))
            self._lowest.assign(ops.minimum(self._lowest.value, lowest))
            self._highest.assign(ops.maximum(self._highest.value, highest))
        wrong = (known < 0) | (known > self.num_classes)
        return {**targets, "semantic": ops.where(wrong, ops.full_like(classes, VOID), classes)}

    def report(self) -> None:
        """Raise if a map had a number that is not a class."""
        # Tensors also where the variables are some of several replicas.
        lowest, highest = int(self._lowest + 0), int(self._highest + 0)
        if lowest < 0 or highest > self.num_classes:
            self._lowest.assign(0)  # The next training may have other maps.
            self._highest.assign(0)
            raise ValueError(
                f"The class maps must hold 0 to num_classes={self.num_classes}, or `ignore_label`. "
                f"Received: {highest if highest > self.num_classes else lowest}"
            )


def _variable(name: str) -> keras.Variable:
    return keras.Variable(
        0, dtype="int32", trainable=False, aggregation="only_first_replica", name=name
    )
