import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from keras_rpe.metrics.matching_parts import EXCESS_COLUMNS, EXCESS_ROWS, matching_parts

GRAPHS = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(lambda shape: arrays(bool, shape))


def largest(edges):
    """The size of a largest matching."""
    first, second = linear_sum_assignment(edges, maximize=True)
    return int(edges[first, second].sum())


@settings(max_examples=200, deadline=None)
@given(GRAPHS)
def test_largest_matchings_stay_within_parts_and_match_all_of_the_fewer(edges):
    rows, columns = matching_parts(csr_array(edges))
    for row, column in np.argwhere(edges):
        rest = np.delete(np.delete(edges, row, 0), column, 1)
        possible = largest(rest) + 1 == largest(edges) if rest.size else True
        # A pair across parts is in no largest matching.
        assert rows[row] == columns[column] or not possible
    total = 0
    for part in set(rows) | set(columns):
        inside = edges[np.ix_(rows == part, columns == part)]
        size = largest(inside) if inside.size else 0
        if part == EXCESS_ROWS:
            assert inside.shape[0] > inside.shape[1] == size
        elif part == EXCESS_COLUMNS:
            assert inside.shape[1] > inside.shape[0] == size
        else:
            assert inside.shape == (size, size)
        total += size
    assert total == largest(edges)


def test_even_parts_are_told_apart():
    rows, columns = matching_parts(csr_array(np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])))
    assert len(set(rows)) == 3
    np.testing.assert_array_equal(rows, columns)
