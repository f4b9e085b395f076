import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.losses import BoundaryCrossEntropy
from keras_rpe.models import BoundaryDetector
from keras_rpe.models.backbones import unet_encoder

RNG = np.random.default_rng(0)


def tiny(**kwargs) -> BoundaryDetector:
    """A detector that is fast to build, with branches at strides 2 and 4."""
    settings = {"fusion_filters": 8, "branches": 2, **kwargs}
    return BoundaryDetector(unet_encoder((8, 12), blocks=1), **settings)


def squares(height: int = 32, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two images of a square, and the share of annotators that drew its sides."""
    images = RNG.normal(60, 5, (2, height, width, 3))
    shares = np.zeros((2, height, width), "float32")
    for k, (top, left) in enumerate(((6, 8), (12, 16))):
        images[k, top : top + 14, left : left + 14] += 90
        shares[k, top : top + 14, left : left + 14] = 0.6
        shares[k, top + 1 : top + 13, left + 1 : left + 13] = 0.0
    return images.clip(0, 255).astype("float32"), shares


@pytest.fixture(scope="module")
def trained() -> BoundaryDetector:
    """A detector that has learned the squares."""
    keras.utils.set_random_seed(0)
    model = tiny(margin=0.2, consensus=0.4, embedding_weight=0.5, border=3)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    dataset = tf.data.Dataset.from_tensors(squares()).repeat(40)
    logs = model.fit(dataset, epochs=2, verbose=0).history
    assert set(logs) == {"loss", "logits_loss", "embedding_2_loss", "embedding_4_loss"}
    parts = np.sum([logs[f"embedding_{stride}_loss"] for stride in (2, 4)], axis=0)
    np.testing.assert_allclose(logs["loss"], logs["logits_loss"] + 0.5 * parts, rtol=1e-3)
    assert logs["embedding_2_loss"][1] < 0.6 * logs["embedding_2_loss"][0]
    return model


def test_outputs_and_the_joint_map_that_is_linear_in_all_embeddings() -> None:
    model = tiny()
    images = RNG.integers(0, 255, (2, 16, 24, 3)).astype("float32")
    outputs = {name: np.asarray(value) for name, value in model(images[:, :15, :21]).items()}
    assert {name: value.shape for name, value in outputs.items()} == {
        "logits": (2, 15, 21, 3),
        "embedding_2": (2, 8, 12, 3),
        "embedding_4": (2, 4, 6, 3),
    }
    outputs = {name: np.asarray(value) for name, value in model(images).items()}
    joint = np.zeros((2, 16, 24))
    for k, stride in enumerate((2, 4)):
        embedding = outputs[f"embedding_{stride}"]
        length = np.linalg.norm(embedding, axis=-1)
        # A cell in which no fused feature is active has no direction.
        assert ((np.abs(length - 1) < 1e-2) | (length == 0)).all()
        assert length.mean() > 0.9
        large = keras.ops.image.resize(embedding, (16, 24))
        kernel, bias = model.get_layer(f"scores_{stride}").get_weights()
        scores = np.asarray(large) @ kernel[0, 0] + bias
        np.testing.assert_allclose(scores[..., 0], outputs["logits"][..., k], atol=1e-4)
        joint += scores[..., 1]
    np.testing.assert_allclose(joint, outputs["logits"][..., 2], atol=1e-4)
    found = model.serve(images)["boundaries"]
    expected = (1 / (1 + np.exp(-outputs["logits"]))).mean(axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_finds_the_squares_it_has_learned(trained) -> None:
    images, shares = squares()
    # By the statistics of the batch: the moving ones are not yet those of the data.
    scores = np.asarray(trained(images, training=True)["logits"]).mean(axis=-1)
    assert scores[shares > 0].mean() > scores[shares == 0].mean() + 1.0
    found = trained.predict(images, verbose=0)
    for k in range(2):
        one = trained.predict_boundaries(images[k])
        assert ((one.thinned == one.probabilities) | (one.thinned == 0) | _near_border(3)).all()
        assert (one.thinned > 0).sum() < (one.probabilities > 0).sum()
        np.testing.assert_allclose(found["thin"][k], one.thinned, atol=1e-5)
    assert not found["thin"][:, [0, -1]].any()
    assert found["boundaries"][:, 0].all()


def _near_border(pixels: int) -> np.ndarray:
    near = np.ones((32, 40), bool)
    near[pixels:-pixels, pixels:-pixels] = False
    return near


def test_without_the_pair_loss_all_else_is_equal() -> None:
    images, shares = squares()
    with_pairs, without = tiny(), tiny(embedding_weight=0.0)
    without.set_weights(with_pairs.get_weights())
    logs, entropies = [], []
    for model in (with_pairs, without):
        model.compile("sgd")
        y_pred = model(images)
        logs.append(float(model.compute_loss(y=shares, y_pred=y_pred)))
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=shares, y_pred=model(images, training=True))
        head = model.get_layer("embed_4").trainable_variables
        assert all(np.abs(g).max() > 0 for g in map(np.asarray, tape.gradient(loss, head)))
        expected = BoundaryCrossEntropy()(shares, y_pred["logits"])
        entropies.append(float(expected))
    assert logs[1] == pytest.approx(entropies[1], rel=1e-5)
    assert logs[0] > entropies[0] + 0.1
    assert entropies[0] == pytest.approx(entropies[1], rel=1e-5)


@pytest.mark.parametrize(
    "policy", [pytest.param("float32", marks=pytest.mark.slow), "mixed_float16"]
)
def test_one_step_under_xla_with_and_without_boundaries(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny()
        model.compile("adam", jit_compile=True)
        images = RNG.integers(0, 255, (2, 19, 26, 3)).astype("uint8")
        shares = np.zeros((2, 19, 26), "float32")
        shares[0, 5] = 1.0
        for y in (shares, shares * 0, shares * 0 - 1):
            logs = model.train_on_batch(images, y, return_dict=True)
            assert np.isfinite(list(logs.values())).all()
        assert all(np.isfinite(w).all() for w in model.get_weights())
        assert model.predict_boundaries(images[0]).probabilities.dtype == np.float32
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "image",
    [
        RNG.integers(0, 255, (33, 47)).astype("uint8"),
        RNG.integers(0, 255, (31, 31, 4)).astype("uint16"),
        np.zeros((8, 9), "uint8"),
    ],
)
def test_predicts_any_image(trained, image: np.ndarray) -> None:
    both = trained.predict_boundaries(image)
    for found in (both.probabilities, both.thinned):
        assert found.shape == image.shape[:2]
        assert found.dtype == np.float32
        assert 0.0 <= found.min() <= found.max() <= 1.0
    with pytest.raises(ValueError, match="`image` must be one image"):
        trained.predict_boundaries(np.zeros((3, 9, 9, 3)))


def test_scales_are_sizes_of_the_image_whose_maps_are_averaged(trained) -> None:
    image = RNG.integers(0, 255, (32, 48, 3)).astype("uint8")
    half = image.reshape(16, 2, 24, 2, 3).mean(axis=(1, 3))
    small = trained.predict_boundaries(half).probabilities
    enlarged = keras.ops.image.resize(small[None, ..., None], (32, 48))[0, ..., 0]
    found = trained.predict_boundaries(image, scales=[0.5]).probabilities
    np.testing.assert_allclose(found, enlarged, atol=2e-3)  # Pixels are rounded to 1/4096.
    whole = trained.predict_boundaries(image).probabilities
    both = trained.predict_boundaries(image, scales=(0.5, 1))
    np.testing.assert_allclose(both.probabilities, (found + whole) / 2, atol=1e-5)
    assert 0 < (both.thinned > 0).mean() < 0.5
    for odd in (image[:9, :11], image[:31, :33]):
        found = trained.predict_boundaries(odd, (0.3, 0.7, 1.5))
        assert found.thinned.shape == odd.shape[:2]
        assert 0.0 < found.probabilities.min() <= found.probabilities.max() <= 1.0


@pytest.mark.parametrize("scales", [(), (0.05,), (1, 1), 1.5, (float("nan"),), ("big",)])
def test_other_scales_are_refused(trained, scales) -> None:
    with pytest.raises(ValueError, match=r"`scales` must be .* numbers in \[0.1, 4\]"):
        trained.predict_boundaries(np.zeros((16, 16), "uint8"), scales=scales)


def test_save_and_load_keep_everything(trained, tmp_path) -> None:
    images, shares = squares()
    trained.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    first, second = loaded.get_config(), trained.get_config()
    first.pop("backbone"), second.pop("backbone")
    assert first == second
    trained.save_to_preset(tmp_path / "preset")
    preset = BoundaryDetector.from_preset(tmp_path / "preset")
    expected = trained.predict_boundaries(images[0]).probabilities
    for model in (loaded, preset):
        np.testing.assert_array_equal(model.predict_boundaries(images[0]).probabilities, expected)
    assert int(loaded.optimizer.iterations) == 80
    loaded.run_eagerly = True
    assert loaded.train_on_batch(images, shares, return_dict=True)["embedding_4_loss"] > 0
    with pytest.warns(UserWarning, match="scores_4/kernel"):
        wider = BoundaryDetector.from_preset(tmp_path / "preset", embedding_dim=8)
    assert wider.get_layer("embed_4").dim == 8


@pytest.mark.slow
def test_exports_equal_keras(tmp_path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    model = tiny()
    images = [RNG.integers(0, 255, (*size, 3)).astype("uint8") for size in ((29, 41), (64, 17))]
    served = tf.saved_model.load(model.export(tmp_path / "boundaries")).signatures
    assert set(served) == {"serving_default", "float_image", "image_bytes"}
    litert = model.export(tmp_path / "boundaries.tflite", format="litert")
    interpreter = Interpreter(str(litert))
    names = {entry["op_name"] for entry in interpreter._get_ops_details()}
    assert not [name for name in names if "Flex" in name or "CUSTOM" in name]
    detect = interpreter.get_signature_runner("serving_default")
    for image in images:
        expected = model.predict_boundaries(image).probabilities
        thin = model.predict_boundaries(image).thinned
        for result in (
            served["serving_default"](image=tf.constant(image[None])),
            served["float_image"](image=tf.constant(image[None].astype("float32"))),
            detect(image=image[None]),
        ):
            np.testing.assert_allclose(result["boundaries"][0], expected, atol=1e-4)
            # A crest within rounding of its neighbour may come or go.
            differs = np.abs(np.asarray(result["thin"])[0] - thin) > 1e-4
            assert differs.mean() < 2e-3
    files = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    result = served["image_bytes"](image_bytes=files)
    assert result["size"].numpy().tolist() == [[29, 41], [64, 17]]
    assert result["boundaries"].shape == result["thin"].shape == (2, 64, 41)
    np.testing.assert_allclose(
        result["boundaries"][1, :, :17],
        model.predict_boundaries(images[1]).probabilities,
        atol=1e-4,
    )
    assert not np.asarray(result["boundaries"])[1, :, 17:].any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"branches": 3}, "branches=3"),
        ({"embedding_dim": 1}, "`dim` must"),
        ({"embedding_weight": -1.0}, "`embedding_weight` must"),
        ({"consensus": 0.0}, "`consensus` must"),
        ({"max_value": 0.0}, "`max_value` must"),
        ({"border": 0.5}, "`border` must"),
    ],
)
def test_wrong_arguments_are_named_at_once(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**wrong)


def test_other_backbones_have_four_branches() -> None:
    model = BoundaryDetector("vgg16", fusion_filters=4)
    assert model.strides == [2, 4, 8, 16]
    outputs = model.compute_output_shape((1, 65, 70, 3))
    assert outputs["logits"] == (1, 65, 70, 5)
    assert outputs["embedding_16"] == (1, 6, 6, 3)
