"""What the builders of instances and classes for TensorFlow Datasets have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_rpe.data.label_maps import LabelMaps


def label_maps_info(tfds: Any, builder: Any, description: str, homepage: str, citation: str) -> Any:
    """Describe a data set whose examples are those of `label_maps_example`.

    Args:
        tfds: The module `tensorflow_datasets`.
        builder: The builder.
        description: What the data set is.
        homepage: Where it comes from; empty for none.
        citation: Its BibTeX entry; empty for none.

    Returns:
        Its `DatasetInfo`. With `as_supervised=True` come an image and a dictionary of `instances`
        and `classes`, as `fit` takes them.
    """
    labels = tfds.features.Tensor(
        shape=(None, None), dtype=np.int32, encoding=tfds.features.Encoding.ZLIB
    )
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "instances": labels,
        "classes": labels,
        "name": tfds.features.Text(),
    }
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("image", {"instances": "instances", "classes": "classes"}),
        homepage=homepage,
        citation=citation,
    )


def label_maps_example(name: str, maps: LabelMaps) -> tuple[str, dict[str, Any]]:
    """Make an example of an image with its maps, whose key is its name."""
    return name, {**maps._asdict(), "name": name}
