"""Pure functions on tensors that the layers and losses are made of."""

from keras_rpe.ops.boundaries import thin_boundaries
from keras_rpe.ops.labels import (
    connected_components,
    embedding_links,
    greedy_suppression,
    grow_labels,
    instance_boxes,
    instance_means,
    label_areas,
    label_overlaps,
    number_labels,
    shift_map,
)
from keras_rpe.ops.loops import repeat, run_while
from keras_rpe.ops.maps import (
    coordinate_channels,
    merge_windows,
    missing_to_multiple,
    partition_windows,
    rotate_by_position,
    sample_nearest,
    upsample_bilinear,
)
from keras_rpe.ops.mean_shift import mean_shift
from keras_rpe.ops.pair_loss import (
    calibrated_cosine_similarity,
    pair_margin_terms,
    pair_weights,
)
from keras_rpe.ops.precision import at_least_float32, precise_dtype
from keras_rpe.ops.seeded_mean_shift import seeded_mean_shift

__all__ = [
    "at_least_float32",
    "calibrated_cosine_similarity",
    "connected_components",
    "coordinate_channels",
    "embedding_links",
    "greedy_suppression",
    "grow_labels",
    "instance_boxes",
    "instance_means",
    "label_areas",
    "label_overlaps",
    "mean_shift",
    "merge_windows",
    "missing_to_multiple",
    "number_labels",
    "pair_margin_terms",
    "pair_weights",
    "partition_windows",
    "precise_dtype",
    "repeat",
    "rotate_by_position",
    "run_while",
    "sample_nearest",
    "seeded_mean_shift",
    "shift_map",
    "thin_boundaries",
    "upsample_bilinear",
]


def __dir__() -> list[str]:
    return __all__
