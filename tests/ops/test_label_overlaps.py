import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.ops.labels import greedy_suppression, label_overlaps


def test_overlaps_are_those_of_masks() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (2, 9, 7, 3)).astype("int32")
    found = np.asarray(label_overlaps(labels, 6))
    assert found.shape == (2, 18, 18)
    for image in range(2):
        masks = [labels[image, ..., p // 6] == p % 6 + 1 for p in range(18)]
        for i, a in enumerate(masks):
            for j, b in enumerate(masks):
                expected = (a & b).sum() / max((a | b).sum(), 1)
                np.testing.assert_allclose(found[image, i, j], expected, atol=1e-6)


def _one_by_one(overlaps: np.ndarray, scores: np.ndarray, valid: np.ndarray, most: float) -> set:
    kept: list[int] = []
    for p in np.argsort(-scores, kind="stable"):
        if valid[p] and all(overlaps[p, k] <= most for k in kept):
            kept.append(p)
    return set(kept)


@given(st.integers(0, 2**31), st.integers(1, 30), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
@settings(max_examples=30, deadline=None)
def test_suppression_is_greedy(seed: int, candidates: int, most: float) -> None:
    rng = np.random.default_rng(seed)
    overlaps = rng.random((2, candidates, candidates)).astype("float32")
    overlaps = np.maximum(overlaps, overlaps.swapaxes(1, 2))
    # Many are equal, so that the order decides.
    scores = rng.integers(0, 5, (2, candidates)).astype("float32")
    valid = rng.random((2, candidates)) > 0.3
    found = np.asarray(greedy_suppression(overlaps, scores, valid, most))
    for image in range(2):
        expected = _one_by_one(overlaps[image], scores[image], valid[image], most)
        assert set(np.flatnonzero(found[image])) == expected
