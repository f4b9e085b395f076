"""Batches for `fit` on every backend, made by a function of NumPy."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_rpe.data.images import ImageFileError

# Arrays, or a dictionary of them: images, and what belongs to them.
Batch = tuple[np.ndarray, Any]


class Batches(keras.utils.PyDataset):
    """Batches of an epoch by their numbers, all of one function, which gets the epoch too."""

    def __init__(self, make: Callable[[int, int], Batch], length: int, workers: int) -> None:
        # Keras starts no thread for one worker, and then nothing is made while the network trains.
        super().__init__(workers=workers or 2, use_multiprocessing=workers > 0)
        self._make, self._length, self._epoch = make, length, 0
        self._turn = threading.Lock()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self._length:  # Python ends loops over sequences by this error.
            raise IndexError(f"There are {self._length} batches. Received: index={index}")
        with self._turn:  # `make` may be a function of the user's.
            return self._make(self._epoch, index)

    def on_epoch_end(self) -> None:
        """Go on to the next epoch; `fit` calls it."""
        self._epoch += 1


def batches(make: Callable[[int, int], Batch], length: int, specs: Any, workers: int = 0) -> Any:
    """Make a `tf.data.Dataset` on TensorFlow, and a `keras.utils.PyDataset` elsewhere.

    `make` gives a batch by the numbers of the epoch and of the batch. `specs` are a nest like a
    batch, of the shapes and types of its arrays as `keras.KerasTensor`. With `workers`, that many
    processes make the batches of a `PyDataset`, on every backend.
    """
    if workers and multiprocessing.get_start_method() != "fork":
        raise ValueError(
            "`workers` must be 0 where processes are not forked, as on macOS and Windows. "
            f"Received: workers={workers}"
        )
    if workers or keras.backend.backend() != "tensorflow":
        return Batches(make, length, workers)
    import tensorflow as tf

    flat = keras.tree.flatten(specs)
    epoch = 0

    def generate() -> Iterator[tuple[Any, ...]]:
        nonlocal epoch
        number, epoch = epoch, epoch + 1
        for index in range(length):
            try:
                yield *keras.tree.flatten(make(number, index)), ""
            except (ImageFileError, OSError) as error:
                yield *(np.zeros([n or 1 for n in s.shape], s.dtype) for s in flat), str(error)
                return

    @tf.autograph.experimental.do_not_convert
    def checked(*batch: tf.Tensor) -> Any:
        # An exception inside the generator would show its whole traceback; this shows a sentence.
        *arrays, problem = batch
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(problem, ""), [problem])]):
            arrays = [tf.identity(array) for array in arrays]
        return keras.tree.pack_sequence_as(specs, arrays)

    signature = *(tf.TensorSpec(s.shape, s.dtype) for s in flat), tf.TensorSpec((), tf.string)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature).map(checked)
    options = tf.data.Options()
    # There is nothing to tune, and the thread that would sleeps for up to a minute, for which the
    # end of an epoch waits.
    options.autotune.enabled = False
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2)
    return dataset.with_options(options)
