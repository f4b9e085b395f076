"""Scores of whole images at the end of an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import Any

import keras
import numpy as np

from keras_rpe.arguments import check_integer
from keras_rpe.metrics.matching import check_ignore_label, check_thresholds, matching_dataset


def _read_pair(index: int, pair: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and the label map of a pair as arrays, or raise `ValueError`."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            "`data` must hold pairs (image, labels). "
            f"Received: an element {index} of type {type(pair).__name__}"
        )
    image, labels = (keras.ops.convert_to_numpy(part) for part in pair)
    fits = image.ndim in (2, 3) and labels.ndim == 2 and image.shape[:2] == labels.shape
    if not fits or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "`data` must hold single images (H, W) or (H, W, channels), each with an integer label "
            f"map (H, W). Received: in pair {index} an image of shape {image.shape} and labels of "
            f"shape {labels.shape} and dtype {labels.dtype}"
        )
    return image, labels


class InstanceEvaluation(keras.callbacks.Callback):
    """Segment whole images at the end of an epoch and log how well the instances match.

    It calls `model.predict_instances(image).labels` image by image, so the images may differ in
    size, and adds `ap` and `pq` (average precision and panoptic quality, see `Matching`; counts
    pooled over all images) to the logs for each threshold: "val_ap50", "val_pq50" for 0.5. Put it
    before `EarlyStopping` or `ModelCheckpoint` in the list of callbacks, and they can monitor
    these names (with `mode="max"`). Epochs that `frequency` skips log nothing.

    Args:
        data: Pairs (image, labels) that can be read again every epoch: a list, or a finite
            `tf.data.Dataset` that is not batched. An image has shape (H, W) or (H, W, channels),
            in whatever value range the model's `predict_instances` takes; labels are an integer
            map (H, W) with 0 as background.
        thresholds: The IoU thresholds, each in (0, 1], all different.
        frequency: The images are evaluated every `frequency` epochs, at least 1.
        prefix: The logged names start with it.
        ignore_label: Label of void pixels in the label maps, or `None`.

    Raises:
        ValueError: If an argument is not as described; the first pair of `data` is checked here,
            and every pair when it is read.
        TypeError: If the model has no `predict_instances`, before training starts.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.callbacks import InstanceEvaluation
        >>> labels = np.array([[0, 1, 1], [2, 0, 1]])
        >>> evaluation = InstanceEvaluation([(labels / 2.0, labels)], thresholds=(0.5, 0.75))
        >>> evaluation.names
        ('val_ap50', 'val_pq50', 'val_ap75', 'val_pq75')
    """

    def __init__(
        self,
        data: Iterable[tuple[Any, Any]],
        thresholds: Sequence[float] = (0.5,),
        frequency: int = 1,
        prefix: str = "val_",
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        self.thresholds = check_thresholds(thresholds)
        self.ignore_label = check_ignore_label(ignore_label)
        if len(set(self.thresholds)) < len(self.thresholds):
            raise ValueError(
                f"`thresholds` must differ from each other. Received: thresholds={thresholds!r}"
            )
        self.frequency = check_integer("frequency", frequency)
        if not isinstance(prefix, str):
            raise ValueError(f"`prefix` must be a string. Received: prefix={prefix!r}")
        self.names = tuple(
            f"{prefix}{figure}{100 * threshold:g}"
            for threshold in self.thresholds
            for figure in ("ap", "pq")
        )
        self.data = data
        try:
            pairs = iter(data)
        except TypeError:
            pairs = None
        if pairs is None or pairs is data:
            raise ValueError(
                "`data` must be a list or a dataset of pairs (image, labels) that can be read "
                f"again every epoch. Received: {type(data).__name__}"
            )
        # The cardinality of a tf.data.Dataset that repeats without end is -1.
        if hasattr(data, "cardinality") and int(data.cardinality()) == -1:
            raise ValueError("`data` must end. Received: a dataset of infinite cardinality")
        first = next(pairs, None)
        if first is None:
            raise ValueError("`data` must hold at least one pair (image, labels). Received: none")
        _read_pair(0, first)

    def set_model(self, model: Any) -> None:
        """Take the model to evaluate; Keras calls this before training."""
        if not callable(getattr(model, "predict_instances", None)):
            raise TypeError(
                "`model` must have a method predict_instances(image) to be evaluated by "
                f"InstanceEvaluation. Received: {type(model).__name__}"
            )
        super().set_model(model)

    def evaluate(self) -> dict[str, float]:
        """Segment all images with the model as it is.

        Returns:
            The figures, by the names that are logged.

        Raises:
            ValueError: If a pair is not as `data` asks for, or a prediction differs from its
                labels in shape.
        """

        def label_maps() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for index, pair in enumerate(self.data):
                image, labels = _read_pair(index, pair)
                predicted = self.model.predict_instances(image).labels
                yield labels, keras.ops.convert_to_numpy(predicted)

        true, pred = tee(label_maps())  # which are read in turns, so that one image is held
        pooled = matching_dataset(
            (labels for labels, _ in true),
            (labels for _, labels in pred),
            self.thresholds,
            self.ignore_label,
        )
        figures = [f for m in pooled for f in (m.average_precision, m.panoptic_quality)]
        return dict(zip(self.names, figures))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the figures to the logs of the epoch."""
        if (epoch + 1) % self.frequency == 0 and logs is not None:
            logs.update(self.evaluate())
