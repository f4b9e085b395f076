"""How many groups fit on the sphere at a margin: the embedding's dimension and the loss's margin.

Similarities are the calibrated ones of the loss, s = (1 + cos)/2. Plain NumPy and SciPy.
"""

from keras_rpe.margins.bounds import (
    fejes_toth_margin,
    fejes_toth_margin_of_many,
    groups_upper_bound,
    levenshtein_bound,
    margin_lower_bound,
)
from keras_rpe.margins.capacity import Capacity, capacity
from keras_rpe.margins.loss_floor import loss_floor
from keras_rpe.margins.margin import Margin, smallest_margin
from keras_rpe.margins.spread_points import largest_similarity, spread_points

__all__ = [
    "Capacity",
    "Margin",
    "capacity",
    "fejes_toth_margin",
    "fejes_toth_margin_of_many",
    "groups_upper_bound",
    "largest_similarity",
    "levenshtein_bound",
    "loss_floor",
    "margin_lower_bound",
    "smallest_margin",
    "spread_points",
]


def __dir__() -> list[str]:
    return __all__
