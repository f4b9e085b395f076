from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.callbacks import InstanceEvaluation
from keras_rpe.metrics import matching_dataset


class ValueReader(keras.Model):
    """Reads the ids from the values of the image, and notes what it is given."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen = []

    def call(self, x):
        return self.dense(x)

    def predict_instances(self, image):
        self.seen.append(image.shape)
        return SimpleNamespace(labels=np.round(image).astype(np.int32))


def random_data(seed=0, sizes=((6, 7), (4, 9), (5, 5))):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, 6, size).astype(np.uint8) for size in sizes]
    images = [np.where(rng.random(x.shape) < 0.25, 0, x).astype(np.float32) for x in labels]
    return list(zip(images, labels))


def fit(callbacks, epochs=1, model=None):
    model = model or ValueReader()
    model.compile("sgd", "mse")
    history = model.fit(
        np.zeros((2, 1)), np.zeros((2, 1)), epochs=epochs, callbacks=callbacks, verbose=0
    )
    return history.history, model


def test_logs_the_figures_of_the_data_set():
    data = random_data()
    history, model = fit([InstanceEvaluation(data, thresholds=(0.5, 0.75))], epochs=2)
    images, labels = zip(*data)
    predicted = [np.round(image).astype(np.int32) for image in images]
    for name, m in zip(("50", "75"), matching_dataset(labels, predicted, (0.5, 0.75))):
        assert 0 < m.average_precision < 1
        assert history[f"val_ap{name}"] == [m.average_precision] * 2
        assert history[f"val_pq{name}"] == [m.panoptic_quality] * 2
    assert model.seen == [image.shape for image in images] * 2


def test_callbacks_after_it_can_monitor_its_figures(tmp_path):
    path = tmp_path / "best.weights.h5"
    stop = keras.callbacks.EarlyStopping(monitor="val_ap50", mode="max", patience=1)
    save = keras.callbacks.ModelCheckpoint(
        path, monitor="val_pq50", mode="max", save_best_only=True, save_weights_only=True
    )
    history, _ = fit([InstanceEvaluation(random_data()), stop, save], epochs=9)
    # The predictions never change, so the second epoch is no better than the first.
    assert len(history["val_ap50"]) == 2
    assert path.is_file()


def test_a_tf_data_set_frequency_prefix_and_void_label():
    data = random_data()
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(data),
        output_signature=(
            tf.TensorSpec((None, None), tf.float32),
            tf.TensorSpec((None, None), tf.uint8),
        ),
    )
    evaluation = InstanceEvaluation(dataset, (0.55,), frequency=2, prefix="test_", ignore_label=2)
    history, model = fit([evaluation], epochs=5)
    images, labels = zip(*data)
    m = matching_dataset(labels, [i.astype(int) for i in images], 0.55, ignore_label=2)
    assert history["test_ap55"] == [m.average_precision] * 2
    assert history["test_pq55"] == [m.panoptic_quality] * 2
    assert len(model.seen) == 2 * len(data)


def test_a_model_that_cannot_segment_is_refused_before_training():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(TypeError, match=r"must have a method predict_instances.*Sequential"):
        fit([InstanceEvaluation(random_data())], model=model)


def one_pair(image_shape, labels_shape, dtype=np.int32):
    return [(np.zeros(image_shape, np.float32), np.zeros(labels_shape, dtype))]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter(random_data()), r"`data` must be a list or a dataset.*list_iterator"),
        (None, r"`data` must be a list or a dataset.*NoneType"),
        ([], r"`data` must hold at least one pair"),
        ([np.zeros((4, 4))], r"`data` must hold pairs.*element 0 of type ndarray"),
        (one_pair((1, 4, 4, 3), (1, 4, 4)), r"single images.*\(1, 4, 4, 3\)"),
        (one_pair((4, 5), (4, 4)), r"single images.*\(4, 5\) and labels of shape \(4, 4\)"),
        (one_pair((4, 4, 3), (4, 4), np.float32), r"integer label map.*dtype float32"),
        (
            tf.data.Dataset.from_tensors((tf.zeros((4, 4)), tf.zeros((4, 4), tf.int32))).repeat(),
            r"`data` must end.*infinite",
        ),
    ],
)
def test_bad_data_are_refused_at_construction(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        InstanceEvaluation(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"thresholds": (0.5, 0)}, r"`threshold` must be a number.*=0"),
        ({"thresholds": (0.5, 0.5)}, r"`thresholds` must differ"),
        ({"frequency": 0}, r"`frequency` must be .*Received: frequency=0"),
        ({"prefix": 3}, r"`prefix` must be a string"),
        ({"ignore_label": "void"}, r"`ignore_label` must be"),
    ],
)
def test_bad_arguments_are_refused_at_construction(kwargs, message):
    with pytest.raises(ValueError, match=message):
        InstanceEvaluation(random_data(), **kwargs)


def test_a_prediction_of_another_size_names_the_image():
    class Shrinker(ValueReader):
        def predict_instances(self, image):
            return SimpleNamespace(labels=np.zeros((2, 2), np.int32))

    evaluation = InstanceEvaluation(random_data())
    evaluation.set_model(Shrinker())
    with pytest.raises(ValueError, match=r"^Image 0: .*same shape.*\(6, 7\) and \(2, 2\)"):
        evaluation.evaluate()
