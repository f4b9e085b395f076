import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.losses import CosineMarginLoss
from keras_rpe.models import SemanticSegmenter
from keras_rpe.models.backbones import unet_encoder

RNG = np.random.default_rng(0)


def backbone() -> keras.Model:
    """An encoder whose moving statistics are soon those of the data."""
    model = unet_encoder((8, 16), blocks=1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8
    return model


def tiny(**kwargs) -> SemanticSegmenter:
    """A segmenter that is fast to build."""
    settings = {"num_classes": 2, "embedding_dim": 8, "fusion_filters": 8, **kwargs}
    return SemanticSegmenter(backbone(), **settings)


def scene(height: int = 32, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two images with dim and bright squares, of class 1 and 2."""
    classes = np.zeros((2, height, width), "int32")
    classes[0, 4:14, 4:14], classes[0, 4:14, 14:24], classes[1, 18:28, 8:20] = 1, 2, 1
    classes[1, 2:12, 22:34] = 2
    images = 60.0 * classes[..., None] + RNG.normal(20, 2, (*classes.shape, 1))
    return np.repeat(images, 3, axis=-1).astype("float32"), classes


@pytest.fixture(scope="module")
def trained() -> SemanticSegmenter:
    """A segmenter that knows the squares, trained with two loops of mean shift."""
    keras.utils.set_random_seed(0)
    model = tiny(iterations=2, ignore_label=255, grouping_weight=1.0)
    model.compile(keras.optimizers.Adam(2e-2), jit_compile=False)
    images, classes = scene()
    labels = {"instances": classes, "classes": classes}
    dataset = tf.data.Dataset.from_tensors((images, labels)).repeat(20)
    logs = model.fit(dataset, epochs=2, verbose=0).history
    parts = {"embedding_loss", "shift_1_loss", "shift_2_loss", "semantic_loss"}
    assert parts | {"loss"} == set(logs)
    np.testing.assert_allclose(logs["loss"], np.sum([logs[name] for name in parts], 0), rtol=1e-3)
    assert logs["loss"][1] < 0.6 * logs["loss"][0]
    assert logs["embedding_loss"][1] < logs["embedding_loss"][0]
    return model


def test_learns_classes(trained) -> None:
    images, classes = scene()
    found = trained.predict_classes(images[0]).classes
    assert found.shape == (32, 40)
    assert found.dtype == np.int32
    assert (found == classes[0]).mean() > 0.9
    batch = trained.predict(images, verbose=0)["classes"]
    np.testing.assert_array_equal(batch[0], found)
    logits = np.asarray(trained(images)["semantic"])
    np.testing.assert_array_equal(batch, logits.argmax(axis=-1))


def test_save_and_load_keep_everything(trained, tmp_path) -> None:
    images, _ = scene()
    trained.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    trained.save_to_preset(tmp_path / "preset")
    preset = SemanticSegmenter.from_preset(tmp_path / "preset")
    for model in (loaded, preset):
        first, second = model.get_config(), trained.get_config()
        first.pop("backbone"), second.pop("backbone")
        assert first == second
        expected = trained.predict_classes(images[0]).classes
        np.testing.assert_array_equal(model.predict_classes(images[0]).classes, expected)
    assert int(loaded.optimizer.iterations) == int(trained.optimizer.iterations) == 40
    with pytest.warns(UserWarning, match="classes/kernel"):
        wider = SemanticSegmenter.from_preset(tmp_path / "preset", num_classes=4)
    assert wider.output["semantic"].shape[-1] == 5


@pytest.mark.slow
def test_exports_equal_keras(trained, tmp_path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    from keras_rpe.export import load_served

    images = [
        scene(*size)[0][k].clip(0, 255).astype("uint8")
        for k, size in enumerate(((29, 41), (64, 37)))
    ]
    saved, litert = trained.export(tmp_path / "semantic"), tmp_path / "semantic.tflite"
    trained.export(litert, format="litert")
    names = {entry["op_name"] for entry in Interpreter(str(litert))._get_ops_details()}
    assert not [name for name in names if "Flex" in name or "CUSTOM" in name]
    for client in (load_served(saved), load_served(litert)):
        for image in images:
            expected, found = (
                trained.predict_classes(image).classes,
                client.predict_classes(image).classes,
            )
            # Scores within rounding of each other may change places.
            assert (found == expected).mean() > 0.999
            assert len(np.unique(found)) > 1
    served = tf.saved_model.load(saved).signatures
    assert set(served["serving_default"].structured_outputs) == {"classes"}
    files = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    result = served["image_bytes"](image_bytes=files)
    assert result["classes"].shape == (2, 64, 41)
    np.testing.assert_array_equal(
        result["classes"][0, :29], trained.predict_classes(images[0]).classes
    )
    assert not np.asarray(result["classes"])[0, 29:].any()


def test_void_counts_in_no_loss() -> None:
    model = tiny(ignore_label=255)
    images, classes = scene()
    losses = dict.fromkeys(("embedding",), CosineMarginLoss(num_samples=None, ignore_label=-1))
    losses["semantic"] = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=-1)
    model.compile("sgd", loss=losses)
    void = classes.copy()
    void[:, :, 20:] = 255
    y_pred = {name: np.array(value) for name, value in model(images).items()}
    other = {name: value.copy() for name, value in y_pred.items()}
    other["semantic"][:, :, 20:] += 7 * RNG.random((2, 32, 20, 3))
    other["embedding"][:, :, 10:] = np.roll(other["embedding"][:, :, 10:], 1, axis=1)
    found = [
        float(model.compute_loss(y=y, y_pred={k: tf.constant(v) for k, v in p.items()}))
        for y, p in ((void, y_pred), (void[..., None], other), (classes, y_pred), (classes, other))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert abs(found[2] - found[0]) > 1e-4
    assert abs(found[3] - found[2]) > 1e-4


def test_without_the_pair_loss_all_else_is_equal() -> None:
    images, classes = scene()
    logs, kept = {}, {}
    for weight in (0.0, 0.5):
        keras.utils.set_random_seed(1)
        model = tiny(grouping_weight=weight)
        model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
        before = model.get_layer("embedding").get_weights()
        first = model.get_weights()
        logs[weight] = model.train_on_batch(images, classes, return_dict=True)
        after = model.get_layer("embedding").get_weights()
        kept[weight] = all(np.array_equal(a, b) for a, b in zip(before, after))
        assert not np.array_equal(model.get_layer("classes").get_weights()[0], 0)
        logs[weight]["first"] = first
    for a, b in zip(logs[0.0].pop("first"), logs[0.5].pop("first"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(logs[0.0]) == {"loss"}
    assert logs[0.5]["semantic_loss"] == pytest.approx(logs[0.0]["loss"], rel=1e-5)
    total = logs[0.5]["semantic_loss"] + 0.5 * logs[0.5]["embedding_loss"]
    assert logs[0.5]["loss"] == pytest.approx(total, rel=1e-5)
    assert kept == {0.0: True, 0.5: False}


def test_any_size_and_kind_of_image() -> None:
    model = tiny()
    for image in (np.zeros((16, 17), "uint16"), RNG.random((33, 20, 4)), np.ones((8, 9, 1), bool)):
        assert model.predict_classes(image).classes.shape == image.shape[:2]
    for image in (np.zeros((3, 9, 9, 3)), np.full((9, 9), np.nan), np.zeros((4, 40))):
        with pytest.raises(ValueError, match="`image` must be"):
            model.predict_classes(image)
    model.compile("sgd", run_eagerly=True)
    labels = {"instances": np.zeros((1, 16, 16), "int32")}
    with pytest.raises(ValueError, match="with them as 'classes'. Received: .*'instances'"):
        model.train_on_batch(np.zeros((1, 16, 16, 3)), labels)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must"),
        ({"grouping_weight": float("nan")}, "`grouping_weight` must"),
        ({"iterations": -1}, "`iterations` must"),
        ({"margin": 1.0}, "`margin` must"),
        ({"embedding_dim": 1}, "`dim` must"),
        ({"ignore_label": 2}, "`ignore_label` must be None or no class, which are 0 to 2"),
        ({"output_stride": 3}, "`output_stride` must"),
        ({"class_names": ["cat"]}, "`class_names` must be None or 2 texts"),
        ({"class_names": "ab", "num_classes": 3}, "`class_names` must be None or 3 texts"),
        ({"class_names": [1, 2]}, "`class_names` must be None or 2 texts"),
    ],
)
def test_wrong_arguments_are_named_at_once(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**wrong)


def test_names_of_classes_go_along_until_the_classes_change(tmp_path) -> None:
    model = tiny(class_names=["cat", "dog"])
    model.save_to_preset(tmp_path)
    loaded = SemanticSegmenter.from_preset(tmp_path)
    assert [loaded.class_name(label) for label in range(3)] == ["background", "cat", "dog"]
    with pytest.warns(UserWarning, match="Re-initialized"):
        other = SemanticSegmenter.from_preset(tmp_path, num_classes=3)
    assert other.class_name(2) == "2"
    named = {"num_classes": 1, "class_names": ["bird"]}
    with pytest.warns(UserWarning, match="Re-initialized"):
        assert SemanticSegmenter.from_preset(tmp_path, **named).class_name(1) == "bird"
