import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pair_loss_by_loops
from scipy.optimize import minimize

from keras_rpe.margins import loss_floor, spread_points
from keras_rpe.ops import pair_margin_terms


def least_loss(labels: list[int], dim: int, margin: float) -> float:
    """The sum of both terms, minimised by descent from several random points."""
    ids = np.array(labels)
    same = ids[:, None] == ids
    sizes = same.sum(axis=1)
    weights = 1 / (np.outer(sizes, sizes) * len(set(labels)) ** 2)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        lengths = np.linalg.norm(flat.reshape(-1, dim), axis=1, keepdims=True)
        x = flat.reshape(-1, dim) / lengths
        s = (1 + x @ x.T) / 2
        slope = weights * np.where(same, -1.0, s > margin) @ x
        slope -= (slope * x).sum(axis=1, keepdims=True) * x
        value = (weights * np.where(same, 1 - s, np.maximum(0, s - margin))).sum()
        return value, (slope / lengths).ravel()

    starts = np.random.default_rng(0).normal(size=(20, len(labels) * dim))
    results = [minimize(loss, start, jac=True, tol=1e-12).x for start in starts]
    units = [x.reshape(-1, dim) for x in results]
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in units]
    return min(sum(pair_loss_by_loops(ids, x, margin)) for x in units)


@pytest.mark.parametrize(
    ("groups", "dim", "margin"),
    [(3, 2, 0.0), (4, 2, 0.0), (4, 3, 0.1), (5, 4, 0.2), (6, 3, 0.1), (8, 3, 0.2), (10, 3, 0.1)],
)
def test_is_the_least_loss(groups: int, dim: int, margin: float) -> None:
    floor = loss_floor(groups, margin)
    assert floor > 0.0
    assert least_loss(list(range(groups)), dim, margin) == pytest.approx(floor, abs=1e-6)


def test_is_the_least_loss_of_groups_of_several_pixels() -> None:
    floor = loss_floor(4, 0.1)
    assert least_loss([0, 0, 1, 1, 1, 2, 3, 3], 3, 0.1) == pytest.approx(floor, abs=1e-6)


@given(
    groups=st.integers(1, 6),
    pixels=st.integers(1, 3),
    dim=st.integers(2, 6),
    margin=st.floats(0.0, 0.99),
    spread=st.floats(0.0, 2.0),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_no_loss_is_below(
    groups: int, pixels: int, dim: int, margin: float, spread: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(groups), pixels)
    x = random.normal(size=(groups, dim))[labels] + spread * random.normal(size=(len(labels), dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert sum(pair_loss_by_loops(labels, x, margin)) >= loss_floor(groups, margin) - 1e-12


@given(groups=st.integers(1, 40), margin=st.floats(0.0, 0.99))
@settings(deadline=None)
def test_simplex_reaches_it(groups: int, margin: float) -> None:
    x = spread_points(max(2, groups), groups)
    labels = np.arange(groups)
    terms = pair_margin_terms(labels[None], x[None].astype("float32"), margin=margin)
    assert float(terms[0][0] + terms[1][0]) == pytest.approx(loss_floor(groups, margin), abs=1e-5)


def test_none_for_one_group_or_where_the_groups_are_orthogonal() -> None:
    assert loss_floor(1, 0.0) == loss_floor(2, 0.1) == loss_floor(10**9, 0.5) == 0.0
    assert loss_floor(10, 0.1) == pytest.approx(0.31)


def test_refuses_other_arguments() -> None:
    with pytest.raises(ValueError, match="`groups` must be an integer of at least 1"):
        loss_floor(0, 0.1)
    with pytest.raises(ValueError, match=r"`margin` must be a number in \[0, 1\)"):
        loss_floor(3, -0.1)
