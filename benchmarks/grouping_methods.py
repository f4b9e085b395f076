"""The methods that `grouping.py` compares: unit embeddings `(N, D)` to a group number for each."""

import os
from collections.abc import Callable

import numpy as np

BANDWIDTH, LOOPS, MAX_SEEDS = 0.2, 10, 512
SIMILARITY = 0.96  # Calibrated, (1 + cos)/2: converged points at least this similar are one group.
FARTHEST_SEEDS, KAPPA = 100, 20.0
JOBS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

Method = Callable[[np.ndarray], np.ndarray]


def exact(_: float) -> Method:
    """Group by `keras_rpe.ops.mean_shift`, all points with all points."""
    from keras_rpe.ops import mean_shift

    shift = compiled(lambda x: mean_shift(x[None], BANDWIDTH, LOOPS)[0])
    return lambda x: linked(shift(x), SIMILARITY)


def seeded(_: float) -> Method:
    """`keras_rpe.ops.seeded_mean_shift`: the points of a group have the same row in the result."""
    import tensorflow as tf

    from keras_rpe.ops import seeded_mean_shift

    def group(x):
        modes = seeded_mean_shift(x[None], BANDWIDTH, MAX_SEEDS, LOOPS)[0]
        return tf.raw_ops.UniqueV2(x=modes, axis=[0]).idx

    return compiled(group)


def compiled(function: Callable) -> Method:
    """Trace once for any number of points, when their depth is known."""
    import tensorflow as tf

    traced = {}

    def run(x):
        depth = x.shape[1]
        if depth not in traced:
            points = tf.TensorSpec((None, depth), tf.float32)
            traced[depth] = tf.function(function, input_signature=[points])
        return traced[depth](x).numpy()

    return run


def farthest_points(_: float) -> Method:
    """Mean shift in NumPy from a fixed number of seeds, each the point farthest from the others."""

    def group(x):
        chosen, closest = [0], x @ x[0]
        while len(chosen) < min(FARTHEST_SEEDS, len(x)):
            chosen.append(int(np.argmin(closest)))
            closest = np.maximum(closest, x @ x[chosen[-1]])
        seeds = x[chosen]
        for _ in range(LOOPS):
            # The factor exp(-κ) cancels when the mean is normalized.
            seeds = np.exp(KAPPA * (seeds @ x.T - 1)) @ x
            seeds /= np.linalg.norm(seeds, axis=1, keepdims=True)
        # (1 - cos)/2 is at most 0.04 where the similarity (1 + cos)/2 is at least 0.96.
        return linked(seeds, SIMILARITY)[np.argmax(x @ seeds.T, axis=1)]

    return group


def sklearn_mean_shift(bandwidth: float) -> Method:
    """The flat kernel of scikit-learn, seeds from a grid as wide as the kernel."""
    from joblib import parallel_config
    from sklearn.cluster import MeanShift

    def group(x):
        # Threads are faster here than processes, and all memory is in this process.
        with parallel_config(backend="threading"):
            return MeanShift(bandwidth=bandwidth, bin_seeding=True, n_jobs=JOBS).fit_predict(x)

    return group


def sklearn_dbscan(radius: float) -> Method:
    """DBSCAN with Euclidean distances."""
    from sklearn.cluster import DBSCAN

    method = DBSCAN(eps=radius, n_jobs=JOBS)
    return lambda x: with_strays(x, method.fit_predict(x))


def sklearn_hdbscan(smallest: float) -> Method:
    """HDBSCAN with Euclidean distances."""
    from sklearn.cluster import HDBSCAN

    method = HDBSCAN(min_cluster_size=int(smallest), min_samples=5, n_jobs=JOBS, copy=True)
    return lambda x: with_strays(x, method.fit_predict(x))


def linked(points: np.ndarray, similarity: float) -> np.ndarray:
    """Take the first point that has no group, with all those similar to it, until none is left."""
    group = np.full(len(points), -1)
    for number in range(len(points)):
        rest = np.flatnonzero(group < 0)
        if not rest.size:
            break
        cosine = points[rest] @ points[rest[0]]
        group[rest[cosine >= 2 * similarity - 1]] = number
        group[rest[0]] = number
    return group


def with_strays(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Give points that were called noise, number -1, to the group of the nearest mean."""
    stray = group < 0
    if stray.all() or not stray.any():
        return group
    mean = np.stack([np.bincount(group[~stray], weights=column) for column in x[~stray].T], axis=-1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    group[stray] = np.argmax(x[stray] @ mean.T.astype(x.dtype), axis=1)
    return group


METHODS: dict[str, tuple[Callable[[float], Method], tuple[float, ...]]] = {
    "ours, seeded": (seeded, ()),
    "ours, exact": (exact, ()),
    "NumPy, seeded": (farthest_points, ()),
    "MeanShift": (sklearn_mean_shift, (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)),
    "DBSCAN": (sklearn_dbscan, (0.2, 0.3, 0.4, 0.5, 0.6)),
    "HDBSCAN": (sklearn_hdbscan, (15, 10, 5)),
}
"""Of each method, what makes it from a setting, and the settings to choose from."""
