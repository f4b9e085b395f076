"""Plain NumPy in float64, by the formulas and with loops where that is plainest."""

from __future__ import annotations

import numpy as np


def unit_points(shape: tuple[int, ...], seed: int = 0, spread: float | None = None) -> np.ndarray:
    """Random points of the sphere; with `spread`, in four clusters of that width."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    if spread is not None:
        centers = rng.normal(size=(4, shape[-1]))
        x = centers[rng.integers(0, 4, shape[:-1])] + spread * x
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def dense_mean_shift(
    x: np.ndarray,
    bandwidth: float,
    iterations: int = 1,
    step_size: float = 1.0,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Kong & Fowlkes (2018), section 4, with the whole kernel, for one set of points (N, D)."""
    weights = np.ones(len(x)) if weights is None else weights
    for _ in range(iterations):
        kernel = np.exp((x @ x.T - 1) / bandwidth**2) * weights[:, None]
        p = kernel / kernel.sum(axis=0)
        y = step_size * p.T @ x + (1 - step_size) * x
        x = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return x


def pair_loss_by_loops(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float,
    power: int = 1,
    void: int | None = None,
    positions: np.ndarray | None = None,
    neighborhood: float | None = None,
) -> tuple[float, float]:
    """Both terms of the pair loss of one image, pair by pair."""
    index = [i for i, label in enumerate(labels) if label != void]
    sizes = {label: sum(labels[i] == label for i in index) for label in {labels[i] for i in index}}
    positive = negative = attracted = repelled = 0.0
    for i in index:
        for j in index:
            weight = 1.0 / (sizes[labels[i]] * sizes[labels[j]] * len(sizes) ** 2)
            s = (1 + x[i] @ x[j]) / 2
            if labels[i] == labels[j] and (neighborhood is None or i != j):
                if neighborhood is not None:  # Every instance of two pixels or more counts alike.
                    weight = 1.0 / (sizes[labels[i]] * (sizes[labels[i]] - 1))
                positive += weight * (1 - s**power)
                attracted += weight
            elif labels[i] == labels[j]:
                continue
            elif neighborhood is None or np.hypot(*(positions[i] - positions[j])) <= neighborhood:
                negative += weight * max(0.0, s - margin) ** power
                repelled += weight
    if neighborhood is None:
        return positive, negative
    return positive / (attracted or 1.0), negative / max(repelled, 0.25 / max(len(sizes), 1))
