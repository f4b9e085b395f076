"""Average precision of instance masks as a Keras metric."""

from __future__ import annotations

from typing import Any

import keras

from keras_rpe.metrics.streaming_matching import StreamingMatching


@keras.saving.register_keras_serializable(package="keras_rpe")
class InstanceAveragePrecision(StreamingMatching):
    """Average precision tp / (tp + fp + fn) of predicted instances at one IoU threshold.

    The counts of all images are pooled, as `matching_dataset` pools them; without any true or
    predicted instance the result is 1.0. Runs inside a graph, under XLA and with dynamic shapes.

    Args:
        threshold: the smallest IoU of a matched pair, from 0.5 to 1.
        max_instances: how many instances of an image take part, those with the smallest ids, from
            1 to 8192; memory grows with its square. Further ones count as not matched.
        ignore_label: pixels with this label in `y_true` are void, or None.
        name: name of the metric.
        dtype: dtype of the metric; the counts themselves are float32.

    Raises:
        ValueError: if an argument lies outside its range.

    Example:
        >>> from keras_rpe.metrics import InstanceAveragePrecision
        >>> metric = InstanceAveragePrecision()
        >>> metric.update_state([[[1, 1, 0, 7]]], [[[4, 4, 0, 0]]])
        >>> float(metric.result())
        0.5
    """

    def __init__(
        self,
        threshold: float = 0.5,
        max_instances: int = 512,
        ignore_label: int | None = None,
        name: str | None = "instance_average_precision",
        dtype: Any = None,
    ) -> None:
        super().__init__(threshold, max_instances, ignore_label, name=name, dtype=dtype)

    def result(self) -> Any:
        """Return the average precision of all images so far, a float32 scalar in [0, 1]."""
        return self._ratio(self.tp, self.tp + self.fp + self.fn)
