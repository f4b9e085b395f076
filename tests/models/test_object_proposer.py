import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from keras_rpe.layers import InstanceDecoder
from keras_rpe.models import ObjectProposer, Proposals
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.models.object_proposer import best_overlaps, fit_regression

RNG = np.random.default_rng(0)


def backbone() -> keras.Model:
    """An encoder whose moving statistics are soon those of the data."""
    model = unet_encoder((8, 16), blocks=1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8
    return model


def tiny(**kwargs) -> ObjectProposer:
    """A proposer that is fast to build, with two scales."""
    settings = {
        "embedding_dim": 8,
        "iterations": 1,
        "fusion_filters": 8,
        "bandwidths": (0.2,),
        "foreground_thresholds": (0.5,),
        "similarity_thresholds": (0.7, 0.96),
        "max_instances": 16,
        "max_proposals": 12,
        "min_area": 4,
    }
    return ObjectProposer(backbone(), **{**settings, **kwargs})


def scene(height: int = 32, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two images with bright squares, and their instance maps."""
    labels = np.zeros((2, height, width), "int32")
    labels[0, 4:14, 4:14], labels[0, 4:14, 14:24], labels[1, 18:28, 8:20] = 1, 2, 1
    images = 40.0 * (labels[..., None] > 0) + RNG.normal(10, 2, (*labels.shape, 1))
    return np.repeat(images, 3, axis=-1).astype("float32"), labels


@pytest.fixture(scope="module")
def trained() -> ObjectProposer:
    """A proposer that finds the squares."""
    keras.utils.set_random_seed(0)
    model = tiny()
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    images, labels = scene()
    dataset = tf.data.Dataset.from_tensors((images, labels)).repeat(20)
    logs = model.fit(dataset, epochs=2, verbose=0).history
    assert set(logs) == {"loss", "embedding_loss", "shift_1_loss", "semantic_loss"}
    assert logs["loss"][1] < 0.5 * logs["loss"][0]
    return model


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_proposes_the_objects(trained) -> None:
    images, labels = scene()
    proposals = trained.predict_proposals(images[0])
    assert isinstance(proposals, Proposals)
    assert proposals.masks.shape[1:] == (32, 40)
    assert proposals.masks.dtype == bool
    assert 2 <= len(proposals) <= 12
    assert (np.diff(proposals.scores) <= 0).all()
    assert ((proposals.scores > 0) & (proposals.scores < 1)).all()
    for number in (1, 2):
        assert max(iou(mask, labels[0] == number) for mask in proposals.masks) > 0.5
    for mask, box in zip(proposals.masks, proposals.boxes):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    for i, a in enumerate(proposals.masks):
        assert all(iou(a, b) <= 0.8 for b in proposals.masks[:i])
    few = trained.predict_proposals(images[0], max_proposals=1)
    np.testing.assert_array_equal(few.masks, proposals.masks[:1])
    assert proposals.areas.tolist() == [mask.sum() for mask in proposals.masks]


def test_predict_gives_the_tables_of_a_batch(trained) -> None:
    images, _ = scene()
    tables = trained.predict(images, verbose=0)
    assert tables["label_maps"].shape == (2, 32, 40, 2)
    for k in range(2):
        one = Proposals.from_tables({name: value[k : k + 1] for name, value in tables.items()})
        np.testing.assert_array_equal(one.masks, trained.predict_proposals(images[k]).masks)


def test_calibration_ranks_by_overlap_and_is_saved(trained, tmp_path) -> None:
    images, labels = scene()
    before = trained.ranking.get_weights()
    correlation = trained.calibrate(images, labels)
    assert correlation > 0.5
    after = trained.predict_proposals(images[0])
    assert not np.allclose(trained.ranking.get_weights()[0], before[0])
    # The best one is an object, and the score of what is none is low.
    best = max(iou(after.masks[0], labels[0] == number) for number in (1, 2))
    assert best > 0.5

    trained.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    trained.save_to_preset(tmp_path / "preset")
    preset = ObjectProposer.from_preset(tmp_path / "preset")
    for model in (loaded, preset):
        first, second = model.get_config(), trained.get_config()
        first.pop("backbone"), second.pop("backbone")
        assert first == second
        assert len(model.weights) == len(trained.weights)
        for a, b in zip(model.get_weights(), trained.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert int(loaded.optimizer.iterations) == int(trained.optimizer.iterations)
    other = ObjectProposer.from_preset(tmp_path / "preset", max_proposals=2)
    assert other.ranking.max_proposals == 2
    for a, b in zip(other.ranking.get_weights(), trained.ranking.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow  # What is new in the graph is exported by the test of its layer.
def test_exports_equal_keras(trained, tmp_path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    from keras_rpe.export import load_served

    images = [
        scene()[0][0].clip(0, 255).astype("uint8"),
        scene(29, 35)[0][1].clip(0, 255).astype("uint8"),
    ]
    saved, litert = trained.export(tmp_path / "objects"), tmp_path / "objects.tflite"
    trained.export(litert, format="litert")
    served = tf.saved_model.load(saved).signatures
    outputs = served["serving_default"].structured_outputs
    assert outputs["label_maps"].shape.as_list() == [None, None, None, 2]
    assert outputs["boxes"].shape.as_list() == [None, 12, 4]
    names = {entry["op_name"] for entry in Interpreter(str(litert))._get_ops_details()}
    assert not [name for name in names if "Flex" in name or "CUSTOM" in name]
    for client in (load_served(saved), load_served(litert)):
        for image in images:
            expected, found = trained.predict_proposals(image), client.predict_proposals(image)
            np.testing.assert_array_equal(found.masks, expected.masks)
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
            np.testing.assert_array_equal(found.boxes, expected.boxes)
            assert len(client.predict_proposals(image, max_proposals=1)) == 1
    with pytest.raises(ValueError, match="must give the labels, .* Received: no labels"):
        load_served(saved).predict_instances(images[0])
    files = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    result = served["image_bytes"](image_bytes=files)
    assert result["label_maps"].shape == (2, 32, 40, 2)
    assert not np.asarray(result["label_maps"])[1, 29:].any()
    tables = {k: v.numpy()[1:] for k, v in result.items()}
    masks = Proposals.from_tables(tables).masks
    np.testing.assert_array_equal(masks[:, :29, :35], trained.predict_proposals(images[1]).masks)
    assert set(served["embeddings"].structured_outputs) == {"embeddings", "class_scores"}


def test_scales_are_those_of_one_decoder_each() -> None:
    thresholds = {"foreground_thresholds": (0.4, 0.6), "similarity_thresholds": (0.7, 0.96)}
    model = tiny(bandwidths=(0.2, 0.6), **thresholds)
    assert model.num_scales == 8
    images = 255 * RNG.random((2, 16, 24, 3)).astype("float32")
    maps = np.asarray(model.serve(images)["label_maps"])
    assert maps.shape == (2, 16, 24, 8)
    embedding, scores = model.embed(images)
    scale = 0
    for bandwidth in (0.2, 0.6):
        modes = model.seeded_mean_shift(embedding, scores[..., 0], bandwidth=bandwidth)
        for foreground in (0.4, 0.6):
            for similarity in (0.7, 0.96):
                decoder = InstanceDecoder(foreground, similarity, min_area=4, max_instances=16)
                labels = np.array(decoder(modes, scores)["labels"])
                labels[labels > 16] = 0  # Only those in the tables are ranked.
                np.testing.assert_array_equal(maps[..., scale], labels, err_msg=str(scale))
                scale += 1
    assert maps.any()
    assert len(np.unique(maps.reshape(-1, 8), axis=1).T) > 1


def test_any_size_and_kind_of_image(trained) -> None:
    for image in (
        np.zeros((16, 17)),
        RNG.integers(0, 65535, (20, 33, 1)).astype("uint16"),
        RNG.normal(size=(41, 20, 3)),
        RNG.random((8, 9, 4)) > 0.5,
    ):
        proposals = trained.predict_proposals(image)
        assert proposals.masks.shape == (len(proposals), *image.shape[:2])
        assert proposals.boxes.shape == (len(proposals), 4)


def test_wrong_inputs() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="`image` must be one image"):
        model.predict_proposals(np.zeros((3, 9, 9, 3)))
    for number in (0, 2.5, True, "all"):
        with pytest.raises(ValueError, match="`max_proposals` must be an integer"):
            model.predict_proposals(np.zeros((9, 9)), max_proposals=number)
    image, labels = np.zeros((9, 9)), np.zeros((9, 9), int)
    for images, maps, message in (
        ([], [], "`images` must hold at least one image"),
        ([], [labels], "no image 0"),
        ([image], [], "no label map 0"),
        ([image], [labels[1:]], "must be maps"),
        ([image], [labels / 2], "`labels` must hold integers"),
    ):
        with pytest.raises(ValueError, match=message):
            model.calibrate(images, maps)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bandwidths": 0.2}, "bandwidths=0.2"),
        ({"bandwidths": (0.2, 0.2)}, "`bandwidths` must .* different"),
        ({"foreground_thresholds": (0.5, 1.0)}, "`foreground_thresholds` must .* in \\(0, 1\\)"),
        ({"similarity_thresholds": (1.1,)}, "`similarity_thresholds` must .* in \\[0, 1\\]"),
        ({"bandwidths": np.arange(1, 18) / 20}, "must make at most 32 scales. Received: 34"),
        ({"max_instances": 3000}, "at most 4096"),
        ({"margin": 1.0}, "`margin` must"),
        ({"iterations": 0}, "`iterations` must"),
        ({"output_stride": 3}, "`output_stride` must"),
    ],
)
def test_wrong_arguments_are_named_at_once(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**wrong)


def test_best_overlaps_are_those_of_masks() -> None:
    truth = np.kron(RNG.integers(0, 4, (4, 5)), np.ones((3, 3), int))
    truth[truth == 3] = 700  # ids may be any
    truth[:2] = 255
    maps = np.kron(RNG.integers(0, 5, (6, 5, 2)), np.ones((2, 3, 1), int))
    found = best_overlaps(maps, truth, 6, ignore_label=255).reshape(2, 6)
    known = truth != 255
    for s in range(2):
        for k in range(6):
            mask = maps[..., s] == k + 1
            if 2 * (mask & known).sum() <= mask.sum():
                assert np.isnan(found[s, k])
                continue
            best = 0.0
            for number in (1, 2, 700):
                true = truth == number
                best = max(best, (mask & true).sum() / ((mask & known) | true).sum())
            assert found[s, k] == pytest.approx(best)


def test_fit_finds_the_regression_that_made_the_targets() -> None:
    """Whether half of the thresholds are reached depends on two of four features."""
    x = RNG.normal(size=(4000, 4)) * [1, 10, 0.1, 1] + [0, 50, 0, 3]
    x[:, 3] = 3.0  # one that is always the same
    share = expit(1.5 * x[:, 0] - 0.2 * (x[:, 1] - 50) - 0.5)
    reached = RNG.binomial(10, share)
    # An IoU that reaches so many of the ten thresholds.
    overlaps = np.where(reached > 0, 0.45 + 0.05 * reached, 0.2)
    weights, bias = fit_regression(x, overlaps)
    np.testing.assert_allclose(weights[:2], [1.5, -0.2], rtol=0.1)
    assert weights[3] == 0.0
    assert abs(weights[2] * 0.1) < 0.1
    predicted = expit(x @ weights + bias)
    np.testing.assert_allclose(predicted.mean(), share.mean(), atol=0.02)
    assert np.abs(predicted - share).mean() < 0.02


def test_fit_of_little_is_finite() -> None:
    for overlaps in (np.zeros(3), np.ones(3)):
        weights, bias = fit_regression(np.ones((3, 2)), overlaps)
        assert np.isfinite([*weights, bias]).all()
        assert (bias > 0) == (overlaps[0] > 0)
