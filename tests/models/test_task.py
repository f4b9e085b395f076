"""A preset with other arguments: what fits is kept, and the rest is named."""

import warnings

import keras
import numpy as np
import pytest
from test_instance_segmenter import tiny

from keras_rpe.models import InstanceSegmenter


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    tiny().save_to_preset(folder)
    return folder


def _weights(model) -> dict[str, np.ndarray]:
    return {v.path: np.array(v.value) for v in model.variables}


def test_other_classes_keep_what_fits(preset) -> None:
    before = InstanceSegmenter.from_preset(preset)
    assert before.weight_report is None
    with pytest.warns(UserWarning, match=r"Re-initialized.*: classes/kernel \(.*classes/bias"):
        model = InstanceSegmenter.from_preset(preset, num_classes=4)
    assert model.num_classes == 4
    report = model.weight_report
    assert {name for name, _ in report.unmatched_weights} == {"classes/kernel", "classes/bias"}
    assert len(report.matched) == len(before.variables) - 2
    old, new = _weights(before), _weights(model)
    for name, source, shape in report.matched:
        assert new[name].shape == shape
        np.testing.assert_array_equal(new[name], old[source])
    assert new["classes/bias"].shape == (5,)


def test_another_embedding_keeps_what_fits(preset) -> None:
    dim = InstanceSegmenter.from_preset(preset).embedding_dim
    with pytest.warns(UserWarning, match="embedding/projection/kernel"):
        model = InstanceSegmenter.from_preset(preset, embedding_dim=2 * dim)
    assert model.embedding_dim == 2 * dim
    assert all(name.startswith("embedding/") for name, _ in model.weight_report.unmatched_weights)


def test_another_backbone_keeps_the_heads_that_fit(preset) -> None:
    with pytest.warns(UserWarning, match="and .* more"):
        model = InstanceSegmenter.from_preset(preset, backbone="mobilenet_v2")
    assert model.backbone.name == "mobilenet_v2"
    matched = {name for name, _, _ in model.weight_report.matched}
    assert {"classes/kernel", "embedding/projection/kernel"} <= matched


def test_settings_without_weights_keep_all(preset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = InstanceSegmenter.from_preset(preset, inference_iterations=1, margin=0.3)
        random = InstanceSegmenter.from_preset(preset, load_weights=False, num_classes=2)
    assert (model.margin, model.inference_iterations) == (0.3, 1)
    assert not model.weight_report.unmatched_weights
    assert random.weight_report is None


def test_one_threshold_changes_and_the_others_stay(preset) -> None:
    before = InstanceSegmenter.from_preset(preset).decoder.get_config()
    model = InstanceSegmenter.from_preset(preset, max_instances=5, min_area=3)
    after = model.decoder.get_config()
    assert {**before, "max_instances": 5, "min_area": 3} == after
    again = InstanceSegmenter.from_config(model.get_config())
    assert again.decoder.get_config() == after


def test_unknown_arguments_are_named(preset) -> None:
    with pytest.raises(TypeError, match=r"`classes` is not an argument of"):
        InstanceSegmenter.from_preset(preset, classes=3)
    with pytest.raises(ValueError, match="num_classes=0"):
        InstanceSegmenter.from_preset(preset, num_classes=0)
    with pytest.raises(TypeError, match="embeding_dim"):
        InstanceSegmenter("unet_small", embeding_dim=3)


def test_a_preset_of_another_task_is_refused(preset) -> None:
    class OtherTask(InstanceSegmenter):
        pass

    with pytest.raises(ValueError, match=r"must be that of a OtherTask. Received:.*InstanceSegmen"):
        OtherTask.from_preset(preset)


@pytest.mark.parametrize("batch", [2, 16])  # 16 is the width as well.
def test_weights_of_images_weigh_their_pixels(batch: int) -> None:
    keras.utils.set_random_seed(0)
    model = tiny()
    model.compile(loss={"semantic": model._auto_losses()[0]["semantic"]})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (batch, 16, 16, 3)).astype("float32")
    labels = rng.integers(0, 3, (batch, 16, 16))
    weight = rng.random(batch).astype("float32")
    output = model(images)
    single = [
        float(
            model.compute_loss(
                images[i : i + 1], labels[i : i + 1], {k: v[i : i + 1] for k, v in output.items()}
            )
        )
        for i in range(batch)
    ]
    loss = model.compute_loss(images, labels, output, sample_weight=weight)
    assert float(loss) == pytest.approx(np.mean(weight * single), rel=1e-5)
    model.compile("sgd")
    model.fit(images, labels, sample_weight=weight, batch_size=batch, verbose=0)
    with pytest.raises(ValueError, match=r"`sample_weight` must be one weight .*\(16, 16"):
        model.compute_loss(images, labels, output, sample_weight=np.ones((16, 16, 16)))


def test_precision_changes_the_network_and_nothing_that_is_saved(preset) -> None:
    model = InstanceSegmenter.from_preset(preset)
    image = np.random.default_rng(0).random((1, 32, 48, 3)).astype("float32")
    expected = model(image)["embedding"]
    half = model.with_dtype_policy("mixed_float16")
    half.compile("adam", jit_compile=False)
    assert half.backbone.layers[1].compute_dtype == "float16"
    assert {v.dtype for v in half.variables} == {"float32"}
    assert type(half.optimizer).__name__ == "LossScaleOptimizer"
    np.testing.assert_allclose(half(image)["embedding"], expected, atol=2e-2)
    again = half.with_dtype_policy("float32")
    np.testing.assert_array_equal(again(image)["embedding"], expected)
    with pytest.raises(ValueError, match="`policy` must be .*'float16'"):
        model.with_dtype_policy("float16")
