"""The same batches from a `tf.data.Dataset`, a `PyDataset` and its worker processes."""

import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.data import ImageFileError, label_folder, write_image, write_labels
from keras_rpe.data.batches import Batches, batches


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    for part in ("images", "instances"):
        (folder / part).mkdir()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        write_image(folder / f"images/{seed}.png", rng.integers(0, 255, (40, 50, 3), "uint8"))
        write_labels(
            folder / f"instances/{seed}.png", np.kron(np.eye(5, dtype=int), np.ones((8, 10), int))
        )
    return label_folder(folder)


def test_epochs_of_both_kinds_are_the_same(images):
    dataset = images.crops(16, 2, seed=1)
    sequence = images.crops(16, 2, seed=1, workers=1)
    assert isinstance(dataset, tf.data.Dataset)
    assert isinstance(sequence, keras.utils.PyDataset)
    assert len(dataset) == len(sequence) == 3
    first = None
    for _ in range(2):
        for (one, labels), (other, same) in zip(dataset, sequence, strict=True):
            np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(labels, same)
        assert first is None or not np.array_equal(first, one)
        first = one
        sequence.on_epoch_end()


def test_fit_takes_batches_of_worker_processes(images):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs))
    model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(images.crops(16, 2, seed=1, workers=2), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_batches_are_made_beside_the_training_one_at_a_time():
    threads, inside = [], []

    def make(epoch: int, index: int) -> tuple:
        threads.append(threading.get_ident())
        inside.append(index)
        time.sleep(0.01)
        assert inside == [index]
        inside.clear()
        return np.full((2, 1), index, "float32"), np.zeros((2, 1), "float32")

    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(Batches(make, 6, 0), epochs=2, verbose=0)
    # Keras looks at one in its own thread.
    assert sum(one != threading.get_ident() for one in threads) == 12


def test_all_batches_come_and_are_counted():
    def make(epoch: int, index: int) -> tuple:
        return np.full((1, 2), index, "float32"), {"a": np.full((1,), epoch, "int32")}

    specs = keras.KerasTensor((None, 2)), {"a": keras.KerasTensor((None,), "int32")}
    dataset = batches(make, 4, specs)
    assert len(dataset) == 4
    for epoch in range(2):
        assert [(int(x[0, 1]), int(y["a"][0])) for x, y in dataset] == [
            (i, epoch) for i in range(4)
        ]
    assert dataset.map(lambda x, y: x).options().autotune.enabled is False
    assert [int(x[0, 0]) for x, _ in Batches(make, 4, 0)] == [0, 1, 2, 3]


def test_a_file_that_goes_bad_is_one_sentence():
    def make(epoch: int, index: int) -> tuple:
        raise ImageFileError("a.png cannot be read.")

    specs = keras.KerasTensor((None, 2)), keras.KerasTensor((None,), "int32")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a\.png cannot be read"):
        list(batches(make, 1, specs))


def test_workers_need_processes_that_fork(images, monkeypatch):
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "spawn")
    with pytest.raises(ValueError, match="`workers` .*workers=2"):
        images.crops(16, 2, workers=2)
