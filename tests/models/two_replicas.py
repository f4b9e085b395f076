"""Run as a script: losses of five steps on one device and on two, which must be made at the start.

The loss of a step is the mean over the batch, so two replicas with half of the batch each have the
same one if nothing else is taken over the batch: batch normalisation is synchronized here, and no
map has more cells than the margin loss draws, so that it draws all.
"""

import json
import sys
from contextlib import nullcontext

import keras
import numpy as np
import tensorflow as tf

from keras_rpe.models import InstanceSegmenter, ObjectProposer, SemanticSegmenter
from keras_rpe.models.backbones import unet_encoder

STEPS, BATCH, SIDE = 5, 4, 32


def backbone(synchronized: bool) -> keras.Model:
    """A small encoder with batch normalisation over all replicas."""

    def change(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["synchronized"] = synchronized
        return type(layer).from_config(config)

    return keras.models.clone_model(unet_encoder((8, 12), blocks=1), clone_function=change)


def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Images of squares, another number of them in each, and their instance maps."""
    rng = np.random.default_rng(0)
    labels = np.zeros((STEPS * BATCH, SIDE, SIDE), "int32")
    for k, one in enumerate(labels):
        for number in range(1, 2 + k % 3):
            row, column = rng.integers(0, SIDE - 10, 2)
            one[row : row + 10, column : column + 10] = number
    images = 100.0 * (labels[..., None] > 0) + rng.normal(50, 20, (*labels.shape, 3))
    return images.astype("float32"), labels


def losses(kind: str, strategy: tf.distribute.Strategy | None, synchronized: bool) -> list[float]:
    """The mean loss up to each step."""
    keras.utils.set_random_seed(0)
    settings = {"embedding_dim": 6, "fusion_filters": 8, "iterations": 1}
    with strategy.scope() if strategy else nullcontext():
        network = backbone(synchronized)
        if kind == "instances":
            model = InstanceSegmenter(network, **settings)
        elif kind == "proposals":
            model = ObjectProposer(network, **settings)
        else:
            model = SemanticSegmenter(network, num_classes=1, **settings)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    images, labels = scenes()
    labels = np.minimum(labels, 1) if kind == "classes" else labels
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)
    found: list[float] = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: found.append(logs["loss"])
    )
    model.fit(dataset, epochs=1, shuffle=False, verbose=0, callbacks=[keep])
    return found


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    result = {"replicas": strategy.num_replicas_in_sync}
    for kind in sys.argv[1:]:
        result[kind] = [losses(kind, where, bool(where)) for where in (None, strategy)]
    print(json.dumps(result))
