"""Save a model as a preset, load it, and compare their outputs bit for bit; on any backend."""

import sys
import warnings

import keras
import numpy as np

from keras_rpe.models import InstanceSegmenter


def main(folder: str) -> None:
    keras.utils.set_random_seed(0)
    model = InstanceSegmenter("unet_small", embedding_dim=8, iterations=2)
    random = np.random.default_rng(0)
    model.set_weights([w + 0.1 * random.random(w.shape, "float32") for w in model.get_weights()])
    model.save_to_preset(folder)
    loaded = InstanceSegmenter.from_preset(folder)
    image = random.integers(0, 255, (1, 48, 40, 3)).astype("uint8")
    outputs = [keras.tree.map_structure(np.asarray, m(image)) for m in (model, loaded)]
    assert outputs[0].keys() == outputs[1].keys()
    for name, value in outputs[0].items():
        np.testing.assert_array_equal(outputs[1][name], value, err_msg=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = InstanceSegmenter.from_preset(folder, num_classes=3)
    assert len(other.weight_report.unmatched_weights) == 2
    print(keras.backend.backend(), len(outputs[0]), "outputs are equal")


if __name__ == "__main__":
    main(sys.argv[1])
