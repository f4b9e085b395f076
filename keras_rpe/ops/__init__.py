"""Pure functions on tensors: similarities and pairs of pixels, mean shift, rotation, thinning."""

from keras_rpe.ops.boundaries import thin_boundaries
from keras_rpe.ops.maps import rotate_by_position
from keras_rpe.ops.mean_shift import mean_shift
from keras_rpe.ops.pair_loss import calibrated_cosine_similarity, pair_margin_terms, pair_weights
from keras_rpe.ops.seeded_mean_shift import seeded_mean_shift

__all__ = [
    "calibrated_cosine_similarity",
    "mean_shift",
    "pair_margin_terms",
    "pair_weights",
    "rotate_by_position",
    "seeded_mean_shift",
    "thin_boundaries",
]


def __dir__() -> list[str]:
    return __all__
