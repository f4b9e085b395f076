from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from checkpoints.matconvnet_fixtures import (
    as_network,
    digits_dagnn,
    resnet_dagnn,
    small_network,
    write,
)
from models.backbones.matconvnet_forward import forward

from keras_rpe.checkpoints import CheckpointError, MatConvNetNetwork, read_matconvnet
from keras_rpe.models.backbones import (
    digits_network,
    load_matconvnet_weights,
    make_backbone,
    unet_encoder,
    use_batch_statistics,
)


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape).astype("float32")


def _close(result: Any, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(np.asarray(result) / scale, expected / scale, atol=tolerance)


@pytest.mark.parametrize(
    ("suffixes", "writer", "batch_statistics"),
    [("short", "v7.3", False), ("long", "v5_compressed", True)],
)
def test_the_digits_network_computes_what_matconvnet_does(
    tmp_path: Path, suffixes: str, writer: str, batch_statistics: bool
) -> None:
    path = write(tmp_path / "net.mat", digits_dagnn(suffixes).tree(), writer, snapshot=True)
    network = read_matconvnet(path)
    assert network.average_image is not None
    model = digits_network(network.average_image.tolist(), embedding_dim=3)
    report = load_matconvnet_weights(model, network)
    assert not report.unmatched_weights
    assert not report.unmatched_arrays
    model = use_batch_statistics(model, batch_statistics)
    for batch in (1, 2):
        images = _images(batch, 8, 10, 3)
        outputs = model(images, training=False)
        expected = forward(network, images - network.average_image, batch_statistics)
        _close(outputs["P0"], expected["conv5_3_relu"])
        _close(outputs["embedding"], expected["res6_conv"])


@pytest.fixture(scope="module")
def resnet() -> MatConvNetNetwork:
    return as_network(resnet_dagnn())


@pytest.mark.parametrize("batch_statistics", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_resnet50_computes_what_matconvnet_does(
    resnet: MatConvNetNetwork, batch_statistics: bool
) -> None:
    model = make_backbone("resnet50")
    report = load_matconvnet_weights(model, resnet)
    assert not report.unmatched_weights
    assert [name for name, _ in report.unmatched_arrays] == ["fc_filter", "fc_bias"]
    model = use_batch_statistics(model, batch_statistics)
    images = _images(2, 64, 96, 3)
    outputs = model(images, training=False)
    expected = forward(resnet, 255.0 * images - resnet.average_image, batch_statistics)
    names = ("conv1_relu", "res2_3_relu", "res3_4_relu", "res4_6_relu", "res5_3_relu")
    # At stride 32 a statistic is of a dozen pixels, which makes the most of float32's rounding.
    for level, name in enumerate(names, start=1):
        _close(outputs[f"P{level}"], expected[name], 5e-4 if level == 5 else 1e-4)


def test_another_mean_differs_only_at_the_border(resnet: MatConvNetNetwork) -> None:
    average = np.array([90.0, 120.0, 150.0], "float32")
    other = MatConvNetNetwork(resnet.layers, resnet.params, average)
    model = make_backbone("resnet50")
    load_matconvnet_weights(model, other)
    images = _images(1, 32, 32, 3)
    expected = forward(other, 255.0 * images - average, False)["conv1_relu"]
    result = model(images, training=False)["P1"]
    _close(result[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2])
    assert np.abs(result[:, 0] - expected[:, 0]).max() > 1.0


def test_without_an_average_image_that_of_the_backbone_stays(resnet: MatConvNetNetwork) -> None:
    bare = MatConvNetNetwork(resnet.layers, resnet.params)
    one, two = make_backbone("resnet50"), make_backbone("resnet50")
    load_matconvnet_weights(one, bare)
    load_matconvnet_weights(two, resnet)
    for a, b in zip(one.get_layer("conv1_conv").weights, two.get_layer("conv1_conv").weights):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_names_and_the_order_of_the_table_do_not_matter() -> None:
    network = as_network(digits_dagnn())
    first = digits_network()
    load_matconvnet_weights(first, network)
    for index, layer in enumerate(network.layers):
        layer.name = f"layer{index}"
    network.layers.reverse()
    second = digits_network()
    load_matconvnet_weights(second, network)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights()))


def test_branches_are_no_part_of_the_trunk() -> None:
    net = digits_dagnn()
    # A head of the very shape of the convolution that it stands beside, and before it in the file.
    net.conv("head_conv", "conv2_3_relu", (1, 1, 64, 32))
    net.norm("head_bn", "head_conv", 32)
    network = as_network(net)
    network.layers[:0] = [network.layers.pop(), network.layers.pop()]
    report = load_matconvnet_weights(digits_network(), network)
    assert [name for name, _ in report.unmatched_arrays][-4:] == [
        "head_conv_f",
        "head_bn_w",
        "head_bn_b",
        "head_bn_m",
    ]
    assert not report.unmatched_weights


def test_moments_become_mean_and_variance() -> None:
    net = digits_dagnn()
    moments = next(row["value"] for row in net.params if row["name"] == "conv1_bn_m")
    moments[:2, 1] = 1e-6, 3.0
    model = digits_network()
    load_matconvnet_weights(model, as_network(net))
    norm = model.get_layer("conv1_bn")
    np.testing.assert_allclose(norm.moving_mean, moments[:, 0], atol=1e-7)
    assert float(norm.moving_variance[0]) == 0.0
    np.testing.assert_allclose(norm.moving_variance[1], 9.0 - 1e-5, rtol=1e-6)


def test_biases_that_the_checkpoint_lacks_are_zero_and_reported() -> None:
    model = make_backbone("resnet50")
    bias = model.get_layer("conv2_block1_1_conv").bias
    bias.assign(np.ones(bias.shape))
    report = load_matconvnet_weights(model, as_network(resnet_dagnn((1, 1, 1, 1))))
    assert not np.any(bias)
    assert (
        "conv2_block1_1_conv/bias",
        "(zeros, for the convolution has no bias)",
        (64,),
    ) in report.matched
    # The second block of a stage takes what a network of one block each never makes.
    assert ("conv2_block2_1_conv/kernel", (1, 1, 256, 64)) in report.unmatched_weights


def test_a_part_that_fits_is_loaded_and_the_rest_reported() -> None:
    net = digits_dagnn()
    index = next(i for i, row in enumerate(net.layers) if row["name"] == "conv4_1a_conv")
    net.layers[index]["params"] = ["other"]
    net.params.append({"name": "other", "value": np.ones((1, 1, 128, 5), "float32")})
    model = digits_network()
    before = model.get_layer("conv4_1a_conv").get_weights()[0]
    report = load_matconvnet_weights(model, as_network(net))
    assert ("other", (1, 1, 128, 5)) in report.unmatched_arrays
    assert ("conv4_1a_conv/kernel", before.shape) in report.unmatched_weights
    assert any(name == "conv4_1_adapt_conv_conv/kernel" for name, _, _ in report.matched)
    assert np.array_equal(model.get_layer("conv4_1a_conv").get_weights()[0], before)


def test_networks_that_do_not_fit() -> None:
    model = unet_encoder((8, 8))
    before = model.get_weights()
    with pytest.raises(CheckpointError, match=r"first convolutions are conv1_conv \(3, 3, 3, 32\)"):
        load_matconvnet_weights(model, as_network(digits_dagnn()))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    with pytest.raises(CheckpointError, match="no convolution that takes an image"):
        load_matconvnet_weights(model, MatConvNetNetwork())
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_matconvnet_weights(model, "no/such/file.mat")
    with pytest.raises(ValueError, match="`backbone` must be a functional Keras model"):
        load_matconvnet_weights(keras.Model(), as_network(small_network()))
    network = as_network(small_network())
    network.layers[1].inputs = ["relu1"]
    with pytest.raises(CheckpointError, match="depend on one another"):
        load_matconvnet_weights(model, network)


def test_strides_in_other_convolutions_of_a_block_are_refused(resnet: MatConvNetNetwork) -> None:
    with pytest.raises(CheckpointError, match="has the stride 1 where 'conv3_block1_2_conv' has 2"):
        load_matconvnet_weights(make_backbone("resnet50_torchvision"), resnet)


def test_a_network_made_denser_is_taken(resnet: MatConvNetNetwork) -> None:
    report = load_matconvnet_weights(make_backbone("resnet50_os8"), resnet)
    assert not report.unmatched_weights
