"""The parts of a bipartite graph that every largest matching stays within."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    maximum_flow,
)

EXCESS_ROWS, EXCESS_COLUMNS = 0, 1


def matching_parts(graph: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Split rows and columns so that no matching of the largest size pairs two of different parts.

    In the part `EXCESS_ROWS` all columns are matched, in `EXCESS_COLUMNS` all rows, and in each of
    the others, from 2, all of both.

    Args:
        graph: sparse matrix (rows, columns); its stored entries are the edges.

    Returns:
        The part of each row and of each column.

    Source: Dulmage and Mendelsohn, "Coverings of bipartite graphs", Canadian Journal of
    Mathematics 10 (1958).

    Example:
        >>> from scipy.sparse import csr_array
        >>> from keras_rpe.metrics.matching_parts import matching_parts
        >>> rows, columns = matching_parts(csr_array([[1, 0, 0], [1, 0, 0], [0, 1, 1]]))
        >>> rows.tolist(), columns.tolist()
        ([0, 0, 1], [0, 1, 1])
    """
    rows, columns = graph.shape
    partner = _largest_matching(graph)
    matched = np.flatnonzero(partner >= 0)
    owner = np.full(columns, -1)
    owner[partner[matched]] = matched
    # A row leads to the rows that own a column it could take: the steps of alternating paths.
    row = np.repeat(np.arange(rows), np.diff(graph.indptr))
    to = owner[graph.indices]
    taken = to >= 0
    start, stop = row[taken], to[taken]
    steps = csr_array((np.ones(start.size, np.int8), (start, stop)), (rows, rows))
    part = 2 + connected_components(steps, connection="strong")[1].astype(np.intp)
    part[_reached(start, stop, np.flatnonzero(partner < 0), rows)] = EXCESS_ROWS
    # Backwards from the rows that could take a column without an owner.
    part[_reached(stop, start, np.unique(row[~taken]), rows)] = EXCESS_COLUMNS
    return part, np.where(owner >= 0, part[owner], EXCESS_COLUMNS)


def _largest_matching(graph: csr_array) -> np.ndarray:
    """The column of each row in some largest matching, or -1.

    SciPy has a function for this, which takes seconds for some graphs of a few hundred rows.
    """
    rows, columns = graph.shape
    sink = rows + columns + 1
    # A unit flows from node 0 through a row and a column to the sink.
    last = rows + graph.nnz
    ends = np.arange(last + 1, last + columns + 1)
    starts = np.concatenate(([0], rows + graph.indptr, ends, [last + columns]))
    stops = np.concatenate(
        (np.arange(1, rows + 1), graph.indices + rows + 1, np.full(columns, sink))
    )
    network = csr_array(
        (np.ones(stops.size, np.int32), stops.astype(np.int32), starts.astype(np.int32)),
        (sink + 1, sink + 1),
    )
    flow = maximum_flow(network, 0, sink).flow[1 : rows + 1].tocoo()
    used = flow.data > 0
    partner = np.full(rows, -1)
    partner[flow.row[used]] = flow.col[used] - rows - 1
    return partner


def _reached(start: np.ndarray, stop: np.ndarray, sources: np.ndarray, count: int) -> np.ndarray:
    """The nodes, of `count`, that steps from start to stop reach from the sources, and these."""
    first = np.full(sources.size, count)
    entries = np.concatenate((start, first)), np.concatenate((stop, sources))
    links = csr_array((np.ones(entries[0].size, np.int8), entries), shape=(count + 1, count + 1))
    reached = breadth_first_order(links, count, return_predecessors=False)
    return reached[reached < count]
