import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.layers import InstanceDecoder
from keras_rpe.losses import CosineMarginLoss
from keras_rpe.metrics import average_precision
from keras_rpe.models import Instances, InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.models.instance_segmenter import best_decoder
from keras_rpe.models.task import Task, label_map

RNG = np.random.default_rng(0)


def tiny(**kwargs) -> InstanceSegmenter:
    """A segmenter that is fast to build."""
    settings = {"embedding_dim": 8, "iterations": 2, "fusion_filters": 8, "window_size": 16}
    return InstanceSegmenter(unet_encoder((8, 16), blocks=1), **{**settings, **kwargs})


def scene(height: int = 32, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two images with bright squares, and their instance maps."""
    labels = np.zeros((2, height, width), "int32")
    labels[0, 4:14, 4:14], labels[0, 4:14, 14:24], labels[1, 18:28, 8:20] = 1, 2, 1
    images = 40.0 * (labels[..., None] > 0) + RNG.normal(10, 2, (*labels.shape, 1))
    return np.repeat(images, 3, axis=-1).astype("float32"), labels


def batches(*some: tuple[np.ndarray, np.ndarray]) -> tf.data.Dataset:
    """Batches whose sizes are not known while the step is traced."""
    images, labels = (
        tf.TensorSpec((None, None, None, 3)),
        tf.TensorSpec((None, None, None), "int32"),
    )
    return tf.data.Dataset.from_generator(lambda: iter(some), output_signature=(images, labels))


@pytest.fixture(scope="module")
def trained() -> InstanceSegmenter:
    """A segmenter that has seen images of several sizes, in one trace, and then learned squares."""
    keras.utils.set_random_seed(0)
    model = tiny(decoder=InstanceDecoder(min_area=3), ignore_label=99, trainable_bandwidth=True)
    model.compile(keras.optimizers.Adam(5e-3), jit_compile=False)
    traces = []

    def counting(self, *args, **kwargs):
        traces.append(1)
        return Task.compute_loss(self, *args, **kwargs)

    sizes = [(1, size, size + 3) for size in (16, 33, 24, 16)]
    noise = [(RNG.random((*size, 3)), np.ones(size, "int32")) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InstanceSegmenter, "compute_loss", counting)
        assert np.isfinite(model.fit(batches(*noise), verbose=0).history["loss"]).all()
        logs = model.fit(batches(*[scene()] * 20), epochs=2, verbose=0).history
    # Keras traces the step once to build its metrics and once to run it.
    assert len(traces) <= 2
    assert logs["loss"][1] < 0.6 * logs["loss"][0]
    return model


@pytest.mark.parametrize(
    ("policy", "shapes"),
    [
        pytest.param("float32", [(32, 32, 0), (27, 41, 1)], marks=pytest.mark.slow),
        ("mixed_float16", [(27, 41, 0)]),
        pytest.param("mixed_bfloat16", [(27, 41, 1)], marks=pytest.mark.slow),
    ],
)
def test_one_step_under_xla_on_odd_sizes_without_and_with_one_instance(
    policy: str, shapes: list[tuple[int, int, int]]
) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny(iterations=1)
        model.compile("adam", jit_compile=True)
        for height, width, instances in shapes:
            images = RNG.integers(0, 255, (1, height, width, 3)).astype("uint8")
            labels = np.zeros((1, height, width), "int32")
            labels[0, 5:15, 5:15] = instances
            logs = model.train_on_batch(images, labels, return_dict=True)
            assert np.isfinite(list(logs.values())).all()
            assert all(np.isfinite(w).all() for w in model.get_weights())
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "image",
    [
        RNG.integers(0, 255, (33, 47)).astype("uint8"),
        RNG.integers(0, 255, (31, 31, 4)).astype("int64"),
        RNG.random((8, 9)) > 0.5,
    ],
)
def test_predict_takes_any_image(trained, image: np.ndarray) -> None:
    result = trained.predict_instances(image)
    assert result.labels.shape == image.shape[:2]
    assert result.labels.dtype == np.int32
    assert result.boxes.shape == (len(result), 4)
    assert result.classes.shape == result.areas.shape == (len(result),)
    assert result.labels.max() == len(result)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((1, 1)), "at least 8 pixels"),
        (np.zeros((5, 40, 40)), "must be one image"),
        (np.full((20, 20), 1e39), "must be finite"),
        (np.array([["a"] * 20] * 20), "must hold booleans, integers or floats"),
        (np.zeros((20, 20, 2)), "must be one image"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_predict_refuses_other_things(trained, image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"`image` .*{message}"):
        trained.predict_instances(image)


def test_predict_ignores_scale_of_pixels_and_gray_is_rgb(trained) -> None:
    gray = RNG.integers(0, 255, (40, 40)).astype("uint8")
    first = trained.predict_instances(gray).labels
    for same in (np.dstack([gray] * 3), gray.astype("uint16") * 64):
        np.testing.assert_array_equal(trained.predict_instances(same).labels, first)
    # A batch goes through the graph for colors.
    colors = trained.predict(np.dstack([gray] * 3)[None], verbose=0)["labels"][0]
    np.testing.assert_array_equal(colors, first)


def test_predict_gives_instances_for_a_batch() -> None:
    # Untrained embeddings are scattered, and rounding would send some to other seeds.
    model = tiny(inference_seeds=None, iterations=1, find_diameter=False)
    images, _ = scene()
    batch = model.predict(images, verbose=0)
    for k in range(2):
        one = model.predict_instances(images[k])
        np.testing.assert_array_equal(batch["labels"][k], one.labels)
        assert batch["num_instances"][k] == len(one)


def test_labels_losses_and_metrics_that_fit_no_output() -> None:
    model = tiny(iterations=1)
    images, labels = scene()
    for argument, value in (
        ("loss", "mse"),
        ("loss", {"embeddings": CosineMarginLoss()}),
        ("loss_weights", [1.0, 2.0]),
        ("metrics", ["accuracy"]),
        ("weighted_metrics", {"labels": "accuracy"}),
    ):
        with pytest.raises(ValueError, match=f"`{argument}` must .* outputs .*embedding, shift_1"):
            model.compile("sgd", **{argument: value})
    accuracy = {"semantic": "sparse_categorical_accuracy"}
    model.compile("sgd", metrics=accuracy, run_eagerly=True)
    history = model.fit(images, labels[..., None], verbose=0).history
    assert 0 <= history["semantic_sparse_categorical_accuracy"][0] <= 1
    for wrong in (labels[:, :20], labels[..., None, None], np.stack([labels] * 2, -1)):
        with pytest.raises(ValueError, match=r"The labels must be maps .* Received: .*shape \("):
            model.fit(images, wrong, verbose=0)


def test_labels_of_both_ranks_in_one_trace() -> None:
    images, labels = scene()
    spec = [tf.TensorSpec(None, "int32"), tf.TensorSpec((None, None, None, 3))]
    traced = tf.function(label_map, input_signature=spec)
    for either in (labels, labels[..., None]):
        np.testing.assert_array_equal(traced(either, images), labels)


def test_arguments_come_back_whoever_adds_some(tmp_path) -> None:
    @keras.saving.register_keras_serializable(package="tests")
    class Mine(InstanceSegmenter):
        def __init__(self, extra: int = 3, **kwargs) -> None:
            super().__init__(**kwargs)
            self.extra = extra

    model = Mine(5, backbone="unet_small", embedding_dim=4, iterations=1)
    model.save(tmp_path / "mine.keras")
    loaded = keras.saving.load_model(tmp_path / "mine.keras")
    assert (loaded.extra, loaded.embedding_dim, loaded.backbone.name) == (5, 4, "unet_small")


def test_save_and_load_keep_everything(trained, tmp_path) -> None:
    images, labels = scene()
    trained.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict_instances(images[0]).labels, trained.predict_instances(images[0]).labels
    )
    first, second = loaded.get_config(), trained.get_config()
    for config in (first, second):  # With the shapes that they were built for.
        del config["backbone"], config["decoder"]
    assert first == second
    assert loaded.decoder.get_config() == trained.decoder.get_config()
    assert int(loaded.optimizer.iterations) == int(trained.optimizer.iterations) > 0
    loaded.run_eagerly = True
    logs = loaded.train_on_batch(images, labels, return_dict=True)
    parts = {"embedding_loss", "shift_1_loss", "shift_2_loss", "semantic_loss", "size_loss"}
    assert parts | {"loss"} == set(logs)
    assert logs["loss"] == pytest.approx(sum(logs[name] for name in parts), rel=1e-3)


@pytest.mark.slow
def test_several_classes() -> None:
    model = tiny(num_classes=3, percentiles=None)
    model.compile(keras.optimizers.Adam(1e-2))
    images, labels = scene()
    # Class 2 is dim, class 3 bright.
    classes = np.where(labels > 0, labels + 1, 0)
    images = (images + 150.0 * (classes == 3)[..., None]) / 200.0
    dataset = tf.data.Dataset.from_tensors((images, {"instances": labels, "classes": classes}))
    model.fit(dataset.repeat(80), epochs=4, verbose=0)
    scores = model.embed(images)[1]
    for value in (2, 3):
        mean = np.asarray(scores)[:, :32, :40][classes == value].mean(axis=0)
        assert mean.argmax() + 1 == value
    result = model.predict_instances(images[0])
    assert set(result.classes) <= {1, 2, 3}
    assert len(result) >= 1
    with pytest.raises(ValueError, match="'instances' and 'classes'"):
        model.train_on_batch(images, labels)


def test_void_pixels_are_left_out() -> None:
    model = tiny(ignore_label=255)
    images, labels = scene()
    model.compile("sgd", loss=_all_pixels(model))
    void = labels.copy()
    void[:, :, 20:] = 255
    other = np.where(void == 255, 255, labels)
    y_pred = model(images)
    moved = {k: np.array(v) for k, v in y_pred.items()}
    moved["semantic"][:, :, 20:] += 7
    a = model.compute_loss(y=void, y_pred=y_pred)
    b = model.compute_loss(y=other, y_pred={k: tf.constant(v) for k, v in moved.items()})
    np.testing.assert_allclose(float(a), float(b), rtol=1e-5)
    assert abs(float(model.compute_loss(y=labels, y_pred=y_pred)) - float(a)) > 1e-4


def test_void_of_class_maps_is_left_out_of_the_class_scores_only() -> None:
    model = tiny(num_classes=2, ignore_label=255)
    images, labels = scene()
    model.compile("sgd", loss=_all_pixels(model))
    classes = np.where(labels > 0, 1, 0)
    void = np.where(np.arange(40) >= 20, 255, classes)
    y_pred = {k: np.array(v) for k, v in model(images).items()}
    moved = {**y_pred, "semantic": y_pred["semantic"].copy()}
    moved["semantic"][:, :, 20:] += 7 * RNG.random((2, 32, 20, 3))

    def loss(instances: np.ndarray, classes: np.ndarray, y_pred: dict) -> float:
        y_pred = {k: tf.constant(v) for k, v in y_pred.items()}
        return float(
            model.compute_loss(y={"instances": instances, "classes": classes}, y_pred=y_pred)
        )

    first = loss(labels, void, y_pred)
    assert first == pytest.approx(loss(labels, void, moved), rel=1e-5)
    assert abs(loss(labels, classes, moved) - loss(labels, classes, y_pred)) > 1e-3
    # The instances there still count.
    other = np.where(np.arange(40) >= 20, 0, labels)
    assert abs(loss(other, void, y_pred) - first) > 1e-4
    assert np.isfinite(loss(0 * labels + 255, 0 * labels + 255, y_pred))


def _all_pixels(model: InstanceSegmenter) -> dict:
    losses = {name: CosineMarginLoss(num_samples=None, ignore_label=-1) for name in model.output}
    losses["semantic"] = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    )
    return losses


def test_gradients_pass_through_the_grouping() -> None:
    """With a loss on the last loop only, the backbone still learns."""
    model = tiny()
    images, labels = scene()
    with tf.GradientTape() as tape:
        last = model(images, training=True)["shift_2"]
        loss = CosineMarginLoss(num_samples=None)(labels, last)
    gradients = tape.gradient(loss, model.backbone.trainable_variables)
    assert all(np.abs(g).max() > 0 for g in map(np.asarray, gradients))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must"),
        ({"output_stride": 3}, "`output_stride` must be 2 or 4"),
        ({"embedding_dim": 7}, "`position_periods` must"),
        ({"iterations": 0}, "`iterations` must"),
    ],
)
def test_wrong_arguments(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**wrong)
    with pytest.raises(ValueError, match="`backbone` must be a keras.Model or one of unet_small"):
        InstanceSegmenter("resnet51")


class _Known:
    """A model whose maps are known: two touching squares, with a rim of low scores, and a speck."""

    ignore_label = -1

    def __init__(self) -> None:
        self.decoder = InstanceDecoder(0.5, 0.9, min_area=4)
        self.labels = np.zeros((24, 32), "int32")
        self.labels[4:20, 4:16], self.labels[4:20, 16:28] = 1, 2
        scores = np.where(self.labels > 0, 0.62, 0.1)
        scores[3:21, 2:4] = scores[3:21, 28:30] = 0.55
        scores[0:3, 0:3] = 0.9
        self.scores = scores.astype("float32")[None, ..., None]
        angle = np.where(self.labels == 1, 0.0, 1.0)[..., None]  # s = 0.77 between the two
        self.x = np.concatenate([np.cos(angle), np.sin(angle)], -1).astype("float32")[None]

    def group(self, images):
        return {"modes": self.x, "scores": self.scores}

    def decode(self, grouped, height, width, **options):
        return self.decoder(grouped["modes"], grouped["scores"], **options)


def test_finds_the_thresholds_that_fit() -> None:
    model = _Known()
    image = np.zeros((24, 32))
    decoder, precision = best_decoder(model, [image] * 2, [model.labels] * 2, (0.5, 0.95))
    assert precision == 1.0
    assert 0.77 < decoder.similarity_threshold <= 0.98
    assert 0.55 < decoder.foreground_threshold <= 0.62
    assert decoder.min_area > 9
    # With the thresholds before, the rim and the speck are counted.
    before = np.asarray(model.decoder(model.x, model.scores)["labels"])[0]
    assert average_precision([model.labels], [before], thresholds=(0.95,))[0] < 1


def test_void_pixels_count_neither_way_and_a_setting_as_good_is_kept() -> None:
    model = _Known()
    model.decoder = InstanceDecoder(0.5, 0.9, min_area=4, max_instances=7, name="mine")
    void = model.labels.copy()
    void[3:21, 2:4] = void[3:21, 28:30] = void[0:3, 0:3] = -1  # the rim and the speck
    decoder, precision = best_decoder(model, [np.zeros((24, 32))], [void], (0.95,))
    assert precision == 1.0
    assert decoder.get_config() == model.decoder.get_config()


def test_a_diameter_that_is_given_is_that_of_the_result(trained) -> None:
    images, _ = scene()
    trained_at = 2 ** float(trained.object_size.log_diameter)
    assert 4 < trained_at < 32
    found = trained.predict_instances(images[0], diameter=trained_at)
    assert found.diameter == pytest.approx(trained_at, rel=1e-4)
    twice = np.kron(images[0], np.ones((2, 2, 1), images.dtype))
    large = trained.predict_instances(twice, diameter=2 * trained_at)
    assert large.labels.shape == twice.shape[:2]
    assert len(large) == len(found)
    same = np.mean((large.labels[::2, ::2] > 0) == (found.labels > 0))
    assert same > 0.97
    for wrong in (0, -3.0, float("nan"), "large"):
        with pytest.raises((TypeError, ValueError), match="diameter"):
            trained.predict_instances(images[0], diameter=wrong)
    plain = tiny(find_diameter=False)
    assert plain.predict_instances(images[0]).diameter is None
    with pytest.raises(ValueError, match="`diameter` must be 'auto' for a model made with"):
        plain.predict_instances(images[0], diameter=20)


def test_an_image_is_resized_to_one_of_eight_scales_an_octave() -> None:
    """So a diameter that comes out a little different in an exported model changes nothing."""
    model = tiny()
    assert model.pixel_step(7.0) == 1, "before training"
    model.object_size.log_diameter.assign(4.0)
    for diameter, step in (
        (16.0, 1),
        (16.6, 1),
        (15.4, 1),
        (32.5, 2),
        (17.0, 279 / 256),
        (1e6, 64),
    ):
        assert model.pixel_step(diameter) == step, diameter
    image = scene()[0][:1]
    found = [model.group(image, np.float32(diameter)) for diameter in (15.4, 16.6, 24.0)]
    np.testing.assert_array_equal(found[0]["modes"], found[1]["modes"])
    assert found[1]["scores"].shape[1:3] != found[2]["scores"].shape[1:3]
    np.testing.assert_allclose([one["diameter"][0] for one in found], [15.4, 16.6, 24.0], rtol=1e-6)
    assert tiny(find_diameter=False).pixel_step(7.0) == 1


def test_models_of_before_have_no_diameter() -> None:
    config = tiny(find_diameter=False).get_config()
    del config["find_diameter"]
    assert not InstanceSegmenter.from_config(config).find_diameter


def test_images_of_a_batch_have_scales_of_their_own(trained) -> None:
    images, _ = scene()
    batch = np.stack([images[0], images[0][::-1]]).astype("float32")
    together = trained.predict(batch, verbose=0)
    for k, image in enumerate(batch):
        alone = trained.predict_instances(image)
        assert together["diameter"][k] == pytest.approx(alone.diameter, rel=1e-4)
        assert np.mean((together["labels"][k] > 0) == (alone.labels > 0)) > 0.97


def test_the_tables_grow_until_all_instances_fit(tmp_path) -> None:
    image = np.full((64, 96), 20.0)
    for row in (16, 48):
        for column in (16, 48, 80):
            image[np.hypot(*np.ogrid[-row : 64 - row, -column : 96 - column]) < 9] = 200
    expected = InstanceSegmenter.from_preset("nuclei").predict_instances(image, 18.0)
    assert len(expected) == 6
    model = InstanceSegmenter.from_preset("nuclei", max_instances=4)
    for rows in (4, 1, 100):  # Set after a prediction, too.
        model.decoder.max_instances = rows
        found = model.predict_instances(image, 18.0)
        assert len(found) == 6
        order = np.argsort(found.boxes[:, 0] * 1000 + found.boxes[:, 1])
        first = np.argsort(expected.boxes[:, 0] * 1000 + expected.boxes[:, 1])
        np.testing.assert_array_equal(found.boxes[order], expected.boxes[first])
        np.testing.assert_allclose(found.scores[order], expected.scores[first], atol=1e-6)
    model.decoder.max_instances = 4
    tables = {
        name: np.asarray(x)
        for name, x in model.serve(image[None, ..., None], np.float32(18)).items()
    }
    assert tables["num_instances"][0] == tables["labels"].max() == 6
    with pytest.warns(UserWarning, match="6 instances, and the model tables for 4"):
        served = Instances.from_tables(tables)
    assert np.isnan(served.scores).tolist() == [False] * 4 + [True] * 2
    assert sorted(map(tuple, served.boxes)) == sorted(map(tuple, expected.boxes))


@pytest.mark.slow
def test_the_segmenter_predicts_with_them(tmp_path) -> None:
    model = InstanceSegmenter.from_preset("nuclei")
    image = np.random.default_rng(0).integers(0, 255, (40, 56), dtype="uint8")
    model.predict_instances(image)
    model.predict(np.zeros((1, 16, 16, 3), "uint8"), verbose=0)
    labels = np.zeros((40, 56), "int32")
    labels[:, :28] = 3
    precision = model.optimize_thresholds([image], [labels], iou_thresholds=(0.5,))
    found = model.predict_instances(image).labels
    assert precision == pytest.approx(average_precision([labels], [found], thresholds=(0.5,))[0])
    batch = np.repeat(image[None, ..., None], 3, axis=-1)
    np.testing.assert_array_equal(model.predict(batch, verbose=0)["labels"][0], found)
    model.save_to_preset(tmp_path / "mine")
    again = InstanceSegmenter.from_preset(tmp_path / "mine")
    assert again.decoder.get_config() == model.decoder.get_config()


def test_images_without_labels_to_optimize_on() -> None:
    model, image = _Known(), np.zeros((24, 32))
    with pytest.raises(ValueError, match="`images` must hold at least one"):
        best_decoder(model, [], [], (0.5,))
    with pytest.raises(ValueError, match=r"sizes of the images\. Received"):
        best_decoder(model, [image], [np.zeros((3, 3), int)], (0.5,))
    with pytest.raises(ValueError, match="equally many. Received: no label map 1"):
        best_decoder(model, [image, image], [model.labels], (0.5,))
