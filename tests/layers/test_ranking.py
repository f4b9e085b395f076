import numpy as np
import pytest
from harness import run_layer_test

from keras_rpe.layers import ProposalRanking
from keras_rpe.layers.ranking import MASK_FEATURES, mask_features

RNG = np.random.default_rng(0)


def blocks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.kron(RNG.integers(0, 4, (2, 4, 3)), np.ones((1, 4, 4), int)).astype("int32")
    scores = RNG.random(labels.shape).astype("float32")
    x = RNG.normal(size=(2, 8, 6, 5))
    return labels, scores, (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


def _sides(labels: np.ndarray, number: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pixels of an instance and their neighbours outside, in float64 and one by one."""
    height, width = labels.shape
    return [
        ((i, j), (i + a, j + b))
        for i, j in np.argwhere(labels == number)
        for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if 0 <= i + a < height and 0 <= j + b < width and labels[i + a, j + b] != number
    ]


def _by_hand(labels: np.ndarray, scores: np.ndarray, x: np.ndarray, number: int) -> dict:
    mask = labels == number
    rows, columns = np.nonzero(mask)
    box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    sides = [box[2] - box[0], box[3] - box[1]]
    around = _sides(labels, number)
    cells = labels[1::2, 1::2]
    cell_sides = _sides(cells, number)
    share = np.log(mask.mean())
    return {
        "log_area": share,
        "log_area_squared": share**2,
        "extent": mask.sum() / np.prod(sides),
        "aspect": min(sides) / max(sides),
        "compactness": min(4 * np.pi * mask.sum() / max(len(around), 1) ** 2, 1.0),
        "border": np.mean(np.array(box) == [0, 0, *labels.shape]),
        "foreground": scores[mask].mean(),
        "foreground_contrast": np.mean([scores[p] - scores[q] for p, q in around] or [0]),
        "cohesion": np.linalg.norm(x[cells == number].mean(axis=0)),
        "embedding_contrast": np.mean([(1 - x[p] @ x[q]) / 2 for p, q in cell_sides] or [0]),
    }


def test_features_are_those_by_hand() -> None:
    labels, scores, x = blocks()
    features, boxes, areas = map(np.asarray, mask_features(labels, scores, x, 5))
    assert features.shape == (2, 5, len(MASK_FEATURES))
    for image in range(2):
        for number in range(1, 6):
            found = features[image, number - 1]
            assert areas[image, number - 1] == (labels[image] == number).sum()
            if not (labels[image] == number).any():
                assert not found.any()
                assert not boxes[image, number - 1].any()
                continue
            expected = _by_hand(*(v[image].astype("float64") for v in (labels, scores, x)), number)
            assert dict(zip(MASK_FEATURES, found)) == pytest.approx(expected, abs=1e-5)


def test_maps_of_one_image_are_described_like_those_of_several() -> None:
    labels, scores, x = blocks()
    three = np.concatenate([labels, labels[::-1], np.minimum(labels, 1)])
    found = mask_features(three, scores, x, 4, maps=3)
    one_by_one = mask_features(three, *(np.concatenate([v] * 3) for v in (scores, x)), 4)
    for a, b in zip(found, one_by_one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_padding_is_no_image() -> None:
    labels, scores, x = blocks()
    labels[:, 12:] = labels[:, :, 8:] = 0
    padded = np.asarray(mask_features(labels, scores, x, 4, height=12, width=8)[0])
    plain = np.asarray(mask_features(labels[:, :12, :8], scores[:, :12, :8], x[:, :6, :4], 4)[0])
    for name in ("log_area", "border"):
        k = MASK_FEATURES.index(name)
        np.testing.assert_allclose(padded[..., k], plain[..., k], atol=1e-6)


def test_an_instance_that_is_the_whole_image() -> None:
    labels = np.ones((1, 8, 8), "int32")
    x = np.ones((1, 4, 4, 1), "float32")
    features = mask_features(labels, np.ones((1, 8, 8), "float32"), x, 1)[0]
    found = dict(zip(MASK_FEATURES, np.asarray(features)[0, 0].tolist()))
    assert np.isfinite(list(found.values())).all()
    assert found["log_area"] == 0
    assert found["border"] == found["foreground"] == found["cohesion"] == found["extent"] == 1
    assert found["foreground_contrast"] == found["embedding_contrast"] == 0


def scene(maps: int = 3, batch: int = 1) -> tuple[np.ndarray, ...]:
    """Label maps of squares that move from map to map, scores and embeddings at stride 2."""
    labels = np.zeros((batch, 24, 20, maps), "int32")
    for s in range(maps):
        labels[:, 2 : 9 + s, 2:9, s] = 1
        labels[:, 12:20, 4 + s : 14, s] = 2
        if s == 1:
            labels[:, 0:2, 15:20, s] = 3
    scores = 0.2 + 0.7 * (labels[..., 0] > 0) + 0.05 * RNG.random(labels.shape[:3])
    x = RNG.normal(size=(batch, 12, 10, 4)) + 3 * np.eye(4)[labels[:, 1::2, 1::2, 0]]
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return labels, scores.astype("float32"), x.astype("float32")


def test_harness(tmp_path) -> None:
    run_layer_test(
        ProposalRanking,
        {"max_instances": 4, "max_proposals": 7, "iou_threshold": 0.9},
        list(scene()),
        tmp_path,
        policies=("mixed_float16",),
        trains=False,
    )


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def brute_force(labels: np.ndarray, scores: np.ndarray, most: float) -> list[tuple[int, int]]:
    """Non-maximum suppression of masks, one after the other; (scale, id) of those that stay."""
    kept: list[int] = []
    masks = [labels[..., p // 4] == p % 4 + 1 for p in range(len(scores))]
    for p in np.argsort(-scores, kind="stable"):
        if masks[p].any() and all(iou(masks[p], masks[k]) <= most for k in kept):
            kept.append(p)
    return [(p // 4, p % 4 + 1) for p in kept]


@pytest.mark.parametrize("most", [0.0, 0.6, 0.8, 1.0])
def test_tables_are_those_of_masks_one_by_one(most: float) -> None:
    labels, scores, x = scene(batch=2)
    labels[1] = RNG.permutation(5)[labels[1]] % 5
    layer = ProposalRanking(max_instances=4, max_proposals=12, iou_threshold=most)
    result = {k: np.asarray(v) for k, v in layer(labels, scores, x).items()}
    found = {k: np.asarray(v) for k, v in layer.describe(labels, scores, x).items()}
    weights, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    logits = found["features"] @ weights + bias
    for image in range(2):
        expected = brute_force(labels[image], logits[image], most)
        n = result["num_proposals"][image]
        pairs = zip(result["scales"][image], result["ids"][image])
        assert list(pairs)[:n] == expected
        for k, (scale, number) in enumerate(expected):
            rows, columns = np.nonzero(labels[image, ..., scale] == number)
            box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            assert result["boxes"][image, k].tolist() == box
            score = 1 / (1 + np.exp(-logits[image, scale * 4 + number - 1]))
            assert result["scores"][image, k] == pytest.approx(score, abs=1e-5)
        for name in ("scores", "scales", "ids", "boxes"):
            assert not result[name][image, n:].any()


def test_stability_is_the_mean_of_the_largest_overlaps_with_other_maps() -> None:
    labels, scores, x = scene()
    layer = ProposalRanking(max_instances=4)
    found = layer.describe(labels, scores, x)
    stability = np.asarray(found["features"])[0, :, layer.feature_names.index("stability")]
    masks = [labels[0, ..., p // 4] == p % 4 + 1 for p in range(12)]
    for p, mask in enumerate(masks):
        if not mask.any():
            assert stability[p] == 0
            continue
        best = [max(iou(mask, masks[4 * s + k]) for k in range(4)) for s in range(3) if s != p // 4]
        assert stability[p] == pytest.approx(np.mean(best), abs=1e-6)
    one = ProposalRanking(max_instances=4).describe(labels[..., :1], scores, x)
    assert not np.asarray(one["features"])[0, :, -1].any()


def test_the_best_come_first_and_the_tables_have_a_length() -> None:
    labels, scores, x = scene()
    few = ProposalRanking(max_instances=4, max_proposals=2, iou_threshold=1.0)
    many = ProposalRanking(max_instances=4, max_proposals=100, iou_threshold=1.0)
    first, all_of_them = few(labels, scores, x), many(labels, scores, x)
    assert first["scores"].shape == (1, 2)
    assert all_of_them["scores"].shape == (1, 12)
    assert int(all_of_them["num_proposals"][0]) == 7
    assert (np.diff(all_of_them["scores"][0, :7]) <= 0).all()
    np.testing.assert_array_equal(first["scores"], all_of_them["scores"][:, :2])


def test_a_regression_of_one_feature_ranks_by_it() -> None:
    labels, scores, x = scene()
    layer = ProposalRanking(max_instances=4, iou_threshold=1.0)
    layer(labels, scores, x)
    weights = np.zeros(len(layer.feature_names))
    weights[layer.feature_names.index("log_area")] = -50.0  # scores that are rounded to 1
    layer.set_regression(weights, 0.0)
    result = layer(labels, scores, x)
    n = int(result["num_proposals"][0])
    areas = [
        (labels[0, ..., scale] == number).sum()
        for scale, number in zip(result["scales"][0, :n].numpy(), result["ids"][0, :n].numpy())
    ]
    assert areas == sorted(areas)
    assert len(set(areas)) > 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_instances": 0}, "max_instances=0"),
        ({"max_instances": 4097}, "max_instances=4097"),
        ({"max_instances": 1366}, "times the number of label maps must be at most 4096"),
        ({"max_proposals": 2.5}, "max_proposals=2.5"),
        ({"iou_threshold": float("nan")}, "iou_threshold=nan"),
    ],
)
def test_wrong_arguments(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProposalRanking(**wrong)(*scene())


def test_wrong_inputs() -> None:
    labels, scores, x = scene()
    with pytest.raises(ValueError, match="takes label maps"):
        ProposalRanking()(labels[..., 0], scores, x)
    layer = ProposalRanking(max_instances=4)
    layer(labels, scores, x)
    for weights, bias in (([1.0], 0.0), ([np.nan] * 11, 0.0), ([0.0] * 11, np.inf)):
        with pytest.raises(ValueError, match="`weights` must be 11 finite numbers"):
            layer.set_regression(weights, bias)
