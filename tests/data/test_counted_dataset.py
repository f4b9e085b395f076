"""The last steps of generated datasets."""

import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.data import digits
from keras_rpe.data.crops import counted_dataset


def numbers(count: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(lambda: iter(range(count)), tf.int32)


def test_all_batches_come_and_are_counted() -> None:
    dataset = counted_dataset(numbers(5), 5)
    assert len(dataset) == 5
    assert [int(x) for x in dataset] == [0, 1, 2, 3, 4]


def test_a_wrong_count_is_an_error() -> None:
    with pytest.raises(tf.errors.FailedPreconditionError):
        list(counted_dataset(numbers(4), 5))


def test_nothing_is_tuned_also_in_what_is_made_of_it() -> None:
    images = np.zeros((20, 28, 28), "uint8")
    images[:, 4:24, 12:16] = 255
    scenes = digits((images, np.arange(20) % 10), num_scenes=4, batch_size=2)
    for dataset in (scenes, scenes.map(lambda x, y: (x / 255, y)).prefetch(tf.data.AUTOTUNE)):
        assert dataset.options().autotune.enabled is False
