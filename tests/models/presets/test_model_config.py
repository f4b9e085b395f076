"""Configurations that are refused; see test_weights_file.py for weights."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter, PresetError
from keras_rpe.models.presets.files import build_model, check_config


def _with_backbone(layer: dict):
    def edit(config: dict) -> None:
        inputs = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="victim")(inputs)
        backbone = keras.saving.serialize_keras_object(keras.Model(inputs, x))
        for entry in backbone["config"]["layers"]:
            if entry["config"]["name"] == "victim":
                entry.update(layer)
        config["config"]["backbone"] = backbone

    return edit


def test_a_lambda_layer_is_refused_and_not_run(forged, tmp_path) -> None:
    mark = str(tmp_path / "ran")
    layer = keras.layers.Lambda(lambda x: (open(mark, "w"), x)[1])  # noqa: PTH123, SIM115
    folder = forged(_with_backbone(keras.saving.serialize_keras_object(layer)))
    with pytest.raises(PresetError, match="Lambda can run code") as error:
        InstanceSegmenter.from_preset(folder)
    assert "\n" not in str(error.value)
    assert not Path(mark).exists()


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "os", "class_name": "system", "registered_name": "system"},
        {"module": "subprocess", "class_name": "Popen", "registered_name": None},
        {"module": "evil.layers", "class_name": "Evil", "registered_name": "evil>Evil"},
        {"module": "keras_hub.layers", "class_name": "Any", "registered_name": "keras_hub>Any"},
        {"module": "keras.layers", "class_name": "TFSMLayer", "registered_name": None},
        {"module": None, "class_name": "__lambda__", "registered_name": None},
        {"module": None, "class_name": "Strange", "registered_name": None},
        {"module": "keras.layers", "class_name": "TextVectorization", "registered_name": None},
    ],
)
def test_foreign_and_unsafe_classes_are_refused(forged, layer: dict) -> None:
    with pytest.raises(PresetError, match=r"must name classes of|can run code") as error:
        InstanceSegmenter.from_preset(forged(_with_backbone(layer)))
    assert layer["class_name"] in str(error.value)


def test_unregistered_classes_are_refused(forged) -> None:
    def edit(config: dict) -> None:
        config["class_name"], config["registered_name"] = "Nope", "keras_rpe>Nope"

    with pytest.raises(PresetError, match=r"cannot be loaded: .*Nope"):
        InstanceSegmenter.from_preset(forged(edit))


def test_trusted_packages_may_be_named() -> None:
    layer = {"module": "mine", "class_name": "A", "registered_name": "mine>A", "config": {}}
    config = {"registered_name": "keras_rpe>Task", "class_name": "Task", "config": [layer]}
    with pytest.raises(PresetError, match=r"trusted_packages.*'mine>A'"):
        check_config(config, "The model")
    check_config(config, "The model", trusted_packages=("mine",))


def test_a_model_that_is_no_keras_rpe_model_is_refused(forged) -> None:
    inputs = keras.Input((3,))
    other = keras.saving.serialize_keras_object(keras.Model(inputs, inputs))
    with pytest.raises(PresetError, match="must describe a keras_rpe model"):
        InstanceSegmenter.from_preset(forged(lambda _: other))


def test_a_layer_in_place_of_a_model_is_refused(forged) -> None:
    from keras_rpe.layers import InstanceDecoder

    other = keras.saving.serialize_keras_object(InstanceDecoder())
    with pytest.raises(PresetError, match="must describe a model"):
        InstanceSegmenter.from_preset(forged(lambda _: other))


def test_deep_and_long_configurations_are_refused() -> None:
    deep: dict = {"registered_name": "keras_rpe>Task"}
    for _ in range(500):
        deep = {"registered_name": "keras_rpe>Task", "config": deep}
    long = {"registered_name": "keras_rpe>Task", "config": [0] * 300_000}
    for config in (deep, long):
        with pytest.raises(PresetError, match="nested 100 deep"):
            check_config(config, "The model")


def test_damaged_arguments_are_one_sentence(forged) -> None:
    def edit(config: dict) -> None:
        config["config"]["embedding_dim"] = "many"

    with pytest.raises(PresetError, match="cannot be loaded") as error:
        InstanceSegmenter.from_preset(forged(edit))
    assert "\n" not in str(error.value)


def test_nothing_is_allocated_for_a_model_that_does_not_fit(forged) -> None:
    """24 GB of weights: they would not fit here, and are not asked for."""
    policy = keras.config.dtype_policy()

    def edit(config: dict) -> None:
        config["config"]["fusion_filters"] = 32_768

    with pytest.raises(PresetError, match="do not fit the model"):
        InstanceSegmenter.from_preset(forged(edit))
    with pytest.raises(PresetError, match="would take"):
        InstanceSegmenter.from_preset(forged(edit), load_weights=False)
    # What was refused is not made later, either.
    with keras.StatelessScope():
        pass
    assert keras.config.dtype_policy() == policy


def test_random_weights_are_initialised(model) -> None:
    config = keras.saving.serialize_keras_object(model)
    built = build_model(json.loads(json.dumps(config)), "The model")
    kernels = [v for v in built.trainable_variables if v.name == "kernel"]
    assert kernels
    assert all(np.std(keras.ops.convert_to_numpy(kernel.value)) > 0 for kernel in kernels)
    assert re.match(r"instance_segmenter", built.name)
