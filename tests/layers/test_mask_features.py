import numpy as np
import pytest

from keras_rpe.layers.ranking import MASK_FEATURES, mask_features

RNG = np.random.default_rng(0)


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    labels, scores, x = scene()
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
    labels, scores, x = scene()
    three = np.concatenate([labels, labels[::-1], np.minimum(labels, 1)])
    found = mask_features(three, scores, x, 4, maps=3)
    one_by_one = mask_features(three, *(np.concatenate([v] * 3) for v in (scores, x)), 4)
    for a, b in zip(found, one_by_one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_padding_is_no_image() -> None:
    labels, scores, x = scene()
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
