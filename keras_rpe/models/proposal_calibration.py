"""Fitting the score of proposals to how well they cover objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from scipy.optimize import minimize
from scipy.special import expit

from keras_rpe.models.compiled_function import compiled_function
from keras_rpe.models.image_label_pairs import image_label_pairs

_IOU_THRESHOLDS = np.arange(0.5, 0.96, 0.05)
_PENALTY = 1.0  # On the weights of standardised features: that of one proposal.
_LEAST_SPREAD = 1e-6


class Regression(NamedTuple):
    """A fitted score σ(weights · features + bias).

    Attributes:
        weights: float64 `(features,)`.
        bias: A number.
    """

    weights: np.ndarray
    bias: float


def described_proposals(
    model: Any, images: Iterable[Any], labels: Iterable[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Give the features of all proposals for some images, and their IoU with the best object.

    Args:
        model: An `ObjectProposer`.
        images: Images as `ObjectProposer.propose` takes them.
        labels: The instance map `(H, W)` of each. Void pixels count neither way, and proposals of
            which half or more are void are left out.

    Returns:
        Features `(n, features)` and IoU `(n,)`, float64, of all images one after the other.

    Raises:
        ValueError: If there are no images, not as many label maps, or sizes differ.
    """
    describe = compiled_function(model.describe, [(None, None, None, 3)])
    features, overlaps = [], []
    for array, truth in image_label_pairs(images, labels):
        result = {key: ops.convert_to_numpy(v)[0] for key, v in describe(array[None]).items()}
        rows = model.ranking.max_instances
        best = best_overlaps(result["label_maps"], truth, rows, model.ignore_label)
        known = ~np.isnan(best)
        features.append(result["features"][known].astype("float64"))
        overlaps.append(best[known])
    return np.concatenate(features), np.concatenate(overlaps)


def best_overlaps(
    maps: np.ndarray, truth: np.ndarray, max_instances: int, ignore_label: int | None = None
) -> np.ndarray:
    """Largest IoU of each instance of some label maps with one of the true instances.

    Args:
        maps: Label maps `(H, W, S)` in [0, max_instances].
        truth: True instance map `(H, W)`, 0 = background.
        max_instances: Instances of a map at most.
        ignore_label: Id of void pixels, which are left out of all masks.

    Returns:
        float64 `(S · max_instances,)`, in the order of `label_overlaps`; NaN for instances that are
        not there, or void for half or more of their pixels.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.proposal_calibration import best_overlaps
        >>> truth = np.array([[5, 5, 0, 7]])
        >>> best_overlaps(np.array([[[1], [1], [1], [2]]]), truth, 3).round(3).tolist()
        [0.667, 1.0, nan]
    """
    void = np.zeros(truth.shape, bool) if ignore_label is None else truth == ignore_label
    # Background is 0 even where no pixel has it.
    ids, dense = np.unique(np.where(void, 0, truth), return_inverse=True)
    dense = dense.reshape(truth.shape) + (0 if 0 in ids else 1)
    columns = int(dense.max(initial=0)) + 1
    true_areas = np.bincount(dense[~void], minlength=columns)
    best = np.full((maps.shape[-1], max_instances), np.nan)
    for s in range(maps.shape[-1]):
        labels = maps[..., s].astype("int64")
        shared = np.bincount(
            (labels * columns + dense)[~void], minlength=(max_instances + 1) * columns
        ).reshape(max_instances + 1, columns)[1:]
        areas = np.bincount(labels.ravel(), minlength=max_instances + 1)[1:]
        valid = shared.sum(axis=1)
        unions = valid[:, None] + true_areas - shared
        overlap = (shared / np.maximum(unions, 1))[:, 1:].max(axis=1, initial=0.0)
        counts = 2 * valid > areas
        best[s, counts] = overlap[counts]
    return best.ravel()


def fit_regression(features: np.ndarray, overlaps: np.ndarray) -> Regression:
    """Fit a logistic regression to the share of IoU thresholds that each proposal reaches.

    The target of a proposal is the share of the thresholds 0.50, 0.55, …, 0.95 up to its IoU with
    an object, so that the score estimates that share, of which average recall is made. The loss is
    the cross-entropy, with a small penalty on the squares of the weights of standardised features.

    Args:
        features: `(n, features)`, n at least 1.
        overlaps: IoU `(n,)` in [0, 1].

    Returns:
        Weights and bias for the features as they are.
    """
    # 1e-9 so that an IoU of 0.6 reaches the threshold 0.6, as it is rounded.
    target = (overlaps[:, None] + 1e-9 >= _IOU_THRESHOLDS).mean(axis=1)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    used = spread > _LEAST_SPREAD
    x = np.where(used, (features - mean) / np.where(used, spread, 1.0), 0.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        logits = x @ weights + bias
        # Cross-entropy of σ(logits): log(1 + e^l) - target · l.
        value = np.sum(np.logaddexp(0.0, logits) - target * logits)
        value += 0.5 * _PENALTY * np.sum(parameters**2)
        error = expit(logits) - target
        gradient = np.append(x.T @ error, error.sum()) + _PENALTY * parameters
        return float(value), gradient

    start = np.zeros(x.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    weights = np.where(used, found[:-1] / np.where(used, spread, 1.0), 0.0)
    return Regression(weights, float(found[-1] - weights @ mean))
