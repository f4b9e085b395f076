import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pair_loss_by_loops, unit_points

from keras_rpe.ops import calibrated_cosine_similarity, pair_margin_terms, pair_weights

X = np.array([[[1, 0, 0], [0.8, 0.6, 0], [0, 0.6, 0.8], [0, 0, 1]]])
LABELS = np.array([[0, 0, 1, 2]])


def test_golden_similarity_and_weights() -> None:
    s = np.asarray(calibrated_cosine_similarity(X))[0]
    expected = [[1, 0.9, 0.5, 0.5], [0.9, 1, 0.68, 0.5], [0.5, 0.68, 1, 0.9], [0.5, 0.5, 0.9, 1]]
    np.testing.assert_allclose(s, expected, atol=1e-12)
    same, weights = (np.asarray(a)[0] for a in pair_weights(LABELS))
    np.testing.assert_allclose(weights[:2, :2], 1 / 36)
    np.testing.assert_allclose(weights[:2, 2:], 1 / 18)
    np.testing.assert_allclose(weights[2:, 2:], 1 / 9)
    assert same.tolist()[0] == [True, True, False, False]


@pytest.mark.parametrize(
    ("margin", "power", "positive", "negative"),
    [
        (0.5, 1, 0.0055556, 0.1088889),
        (0.1, 1, 0.0055556, 0.3755556),
        (0.5, 2, 0.0105556, 0.0391556),
        (0.1, 2, 0.0105556, 0.2329333),
    ],
)
def test_golden_terms(margin: float, power: int, positive: float, negative: float) -> None:
    terms = pair_margin_terms(LABELS, X, margin=margin, power=power)
    np.testing.assert_allclose([float(t[0]) for t in terms], [positive, negative], atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.floats(0, 0.9),
    st.sampled_from([1, 2]),
    st.integers(0, 10**6),
)
def test_terms_equal_loops_over_pairs(
    n: int, instances: int, margin: float, power: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, instances, n)
    x = unit_points((n, 4), seed=seed)
    terms = pair_margin_terms(labels[None], x[None], labels[None] >= 0, margin, power)
    expected = pair_loss_by_loops(labels, x, margin, power, void=-1)
    np.testing.assert_allclose([float(t[0]) for t in terms], expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 6), st.integers(1, 5), st.sampled_from([1, 2]), st.integers(0, 10**6))
def test_terms_of_a_neighborhood_equal_loops_over_pairs(
    radius: float, instances: int, power: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(-1, instances, 20)
    x, positions = unit_points((20, 4), seed=seed), np.argwhere(np.ones((4, 5))).astype(float)
    terms = pair_margin_terms(
        labels[None], x[None], labels[None] >= 0, 0.3, power, positions[None], radius
    )
    expected = pair_loss_by_loops(labels, x, 0.3, power, -1, positions, radius)
    np.testing.assert_allclose([float(t[0]) for t in terms], expected, atol=1e-6)


def test_void_and_single_instances() -> None:
    x = unit_points((3, 6, 4))
    labels = np.array([[0] * 6, [5] * 6, [1, 1, 1, 2, 2, 2]])
    valid = np.array([[False] * 6, [True] * 6, [True] * 3 + [False] * 3])
    positive, negative = (np.asarray(t) for t in pair_margin_terms(labels, x, valid))
    assert positive[0] == 0
    assert np.all(positive[1:] > 0)
    np.testing.assert_array_equal(negative, 0)


@pytest.mark.parametrize("groups", [2, 3, 8])
def test_floor_of_the_negative_term(groups: int) -> None:
    """With perfect positives, Q groups spread as a simplex reach the floor of the method."""
    margin = 0.1
    simplex = np.eye(groups) - 1 / groups
    simplex /= np.linalg.norm(simplex, axis=-1, keepdims=True)
    labels = np.repeat(np.arange(groups), 3)[None]
    positive, negative = pair_margin_terms(labels, simplex[labels], margin=margin)
    floor = max(0.0, (0.5 - margin) - (1 - margin) / groups)
    np.testing.assert_allclose([float(positive[0]), float(negative[0])], [0, floor], atol=1e-6)
