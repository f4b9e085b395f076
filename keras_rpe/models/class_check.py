"""An error where class maps hold numbers that are no class of the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import keras
from keras import ops

Tensor = Any

_EVERY = 16  # Steps from one look at what was seen to the next, which waits for the device.


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
        >>> from keras_rpe.models.class_check import ClassCheck
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
