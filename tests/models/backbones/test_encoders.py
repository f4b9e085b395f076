import keras
import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import digits_network, pyramid, unet_encoder


def test_twelve_bottlenecks_of_a_million_and_a_quarter_parameters() -> None:
    model = digits_network()
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == 1_251_808
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == 12
    assert all(
        layer.strides == (1, 1) for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
    )


def test_the_last_layer_of_the_tutorial() -> None:
    outputs = digits_network(embedding_dim=3)(np.zeros((1, 8, 8, 3), "float32"))
    assert outputs["embedding"].shape == (1, 8, 8, 3)
    assert outputs["P0"].shape == (1, 8, 8, 512)


def test_the_average_image_is_subtracted() -> None:
    model = digits_network(average_image=(0.25, 0.5, 0.75))
    centered = keras.Model(model.input, model.get_layer("centered").output)
    pixels = np.array([0.25, 0.5, 0.75], "float32").reshape(1, 1, 1, 3)
    np.testing.assert_allclose(centered(pixels), np.zeros((1, 1, 1, 3)), atol=1e-7)


def test_a_segmenter_takes_it_and_is_made_again() -> None:
    model = InstanceSegmenter(
        digits_network(), embedding_dim=3, iterations=1, position_periods=None, fusion_filters=8
    )
    assert model.output_stride == 1
    outputs = model(np.random.default_rng(0).random((1, 12, 16, 3)).astype("float32"))
    assert outputs["shift_1"].shape == (1, 12, 16, 3)
    clone = InstanceSegmenter.from_config(model.get_config())
    assert clone.count_params() == model.count_params()


def test_wrong_arguments_of_the_digits_network() -> None:
    with pytest.raises(ValueError, match=r"`average_image` must be three numbers in \[0, 1\]"):
        digits_network(average_image=(123.0, 116.0, 103.0))
    with pytest.raises(ValueError, match="embedding_dim=0"):
        digits_network(embedding_dim=0)


def test_an_encoder_that_begins_at_every_pixel() -> None:
    fine = unet_encoder((8, 12, 16), blocks=1, stem_stride=1)
    features, strides = pyramid(fine)
    assert strides == [1, 2, 4]
    maps = features(np.zeros((1, 24, 40, 3), "float32"))
    assert [tuple(x.shape) for x in maps] == [(1, 24, 40, 8), (1, 12, 20, 12), (1, 6, 10, 16)]
    assert list(fine.output) == ["P0", "P1", "P2"]


@pytest.mark.parametrize(
    "wrong", [{"widths": ()}, {"widths": (8, 0)}, {"blocks": 0}, {"stem_stride": 4}]
)
def test_wrong_arguments_of_the_encoder(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be .* Received: "):
        unet_encoder(**wrong)
