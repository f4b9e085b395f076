from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from checkpoints.matconvnet_fixtures import Dagnn, small_network, write

from keras_rpe.checkpoints import CheckpointError, read_matconvnet


@pytest.mark.parametrize(
    ("suffixes", "writer", "nested", "snapshot"),
    [
        ("short", "v5", False, False),
        ("long", "v5_compressed", True, True),
        ("short", "v7.3", False, True),
    ],
)
def test_every_variant(
    tmp_path: Path, suffixes: str, writer: str, nested: bool, snapshot: bool
) -> None:
    net = small_network(suffixes)
    network = read_matconvnet(write(tmp_path / "net.mat", net.tree(), writer, nested, snapshot))
    assert [layer.name for layer in network.layers] == [row["name"] for row in net.layers]
    assert [layer.kind for layer in network.layers] == ["Conv", "BatchNorm", "ReLU", "Conv", "Loss"]
    assert list(network.params) == [row["name"] for row in net.params]
    for row in net.params:
        stored = network.params[row["name"]]
        assert stored.dtype == "float32"
        np.testing.assert_array_equal(stored.ravel("F"), row["value"].ravel("F"))
    conv, norm, _, out, loss = network.layers
    assert loss.inputs == ["out", "label"]
    assert loss.block["loss"] == "softmaxlog"
    assert conv.block["size"] == (3.0, 3.0, 3.0, 8.0)
    assert conv.block["hasBias"] == 0.0
    assert norm.block["epsilon"] == 1e-5
    shapes = [[network.params[name].shape for name in layer.params] for layer in (conv, norm, out)]
    assert shapes == [[(3, 3, 3, 8)], [(8,), (8,), (8, 2)], [(1, 1, 8, 1), (1,)]]
    np.testing.assert_allclose(network.average_image, [123.68, 116.779, 103.939], rtol=1e-6)


@pytest.mark.parametrize("writer", ["v5", "v7.3"])
def test_one_channel_and_one_layer(tmp_path: Path, writer: str) -> None:
    net = Dagnn()
    net.norm("bn", net.conv("conv", "x", (3, 3, 1, 1), bias=True), 1)
    network = read_matconvnet(write(tmp_path / "net.mat", net.tree(), writer))
    shapes = {name: array.shape for name, array in network.params.items()}
    norm = {"bn_w": (1,), "bn_b": (1,), "bn_m": (1, 2)}
    assert shapes == {"conv_f": (3, 3, 1, 1), "conv_b": (1,), **norm}
    net = Dagnn()
    net.conv("conv", "x", (3, 3, 2, 1))
    # MATLAB stores doubles that are whole in fewer bytes.
    net.params[0]["value"] = np.arange(18).reshape(3, 3, 2, 1).astype("uint8")
    network = read_matconvnet(write(tmp_path / "net.mat", net.tree(), writer))
    assert network.params["conv_f"].dtype == "float32"
    np.testing.assert_array_equal(network.params["conv_f"].ravel(), np.arange(18))
    assert network.average_image is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda net: net.params[0].update(value=np.ones((3, 3, 3, 7), "f4")), r"\(3, 3, 3, 7\) in"),
        (lambda net: net.params[1].update(value=np.ones((7, 1), "f4")), r"of \[7, 8, 8\] channels"),
        (lambda net: net.params[3].update(value=np.ones((3, 3), "f4")), r"\(3, 3\) in place of"),
        (lambda net: net.params[2].update(value=np.full((8, 1), 1e300)), "float32"),
        (lambda net: net.params[2].update(value="text"), "is not an array of numbers"),
        (lambda net: net.params[2].update(name="conv1_f"), "two parameters of the name 'conv1_f'"),
        (lambda net: net.params.pop(2), "lacks its parameter 'conv1_bn_b'"),
        (lambda net: net.layers[0].update(type=["a"]), "no text `type`"),
        (lambda net: net.layers[0].update(inputs=np.ones((2, 2))), "`inputs` of a layer are not"),
        (
            lambda net: net.layers[0]["block"].update(size=np.full((1, 4), 1e18)),
            "filters of the size",
        ),
        (lambda net: setattr(net, "average_image", np.ones((2, 2))), "average image has the shape"),
    ],
)
def test_networks_that_make_no_sense(
    tmp_path: Path, change: Callable[[Dagnn], Any], reason: str
) -> None:
    net = small_network()
    change(net)
    path = write(tmp_path / "net.mat", net.tree(), "v5")
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_matconvnet(path)
    assert str(caught.value).startswith("`path` must be a MATLAB file with a network of MatConvNet")
    assert "\n" not in str(caught.value)


def test_other_files(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.ones((2, 2))})
    scipy.io.savemat(tmp_path / "array.mat", {"net": np.ones((2, 2))})
    reasons = {
        "missing.mat": "there is no such file",
        "other.mat": "it has no structs `layers` and `params`",
        "array.mat": "`net` is not a struct",
    }
    for name, reason in reasons.items():
        with pytest.raises(CheckpointError, match=reason):
            read_matconvnet(tmp_path / name)
