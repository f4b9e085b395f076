"""The last steps of every dataset that a generator feeds."""

from __future__ import annotations

import tensorflow as tf


def counted_dataset(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Give a dataset a known length, and two batches that are ready before they are asked for.

    Nothing in it is left to tune, so that TensorFlow's tuner is turned off: its thread sleeps for
    up to a minute, and an iterator that ends while it does waits for it, at the end of an epoch.

    Args:
        dataset: Batches.
        length: Their number.

    Returns:
        The same batches.

    Example:
        >>> import tensorflow as tf
        >>> from keras_rpe.data.counted_dataset import counted_dataset
        >>> numbers = tf.data.Dataset.from_generator(lambda: iter(range(3)), tf.int32)
        >>> len(counted_dataset(numbers, 3))
        3
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2)
    return dataset.with_options(options)
