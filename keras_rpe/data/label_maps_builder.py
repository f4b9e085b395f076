"""Builders of instances and classes for TensorFlow Datasets."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.data.labels import LabelMaps
from keras_rpe.optional_import import optional_import

NamedMaps = Iterable[tuple[str, LabelMaps]]
"""The names of images, and these with their maps."""


def label_maps_builder(
    module: str,
    name: str,
    doc: str,
    splits: Callable[[Path, str | None], dict[str, NamedMaps]],
    *,
    description: str,
    instructions: str,
    homepage: str = "",
    citation: str = "",
    configs: Sequence[tuple[str, str]] = (),
) -> type:
    """Make the class of a builder whose data a user puts into a folder by hand.

    An example has `image`, uint8 (H, W, 3); `instances` and `classes`, int32 (H, W); and `name`,
    which is its key. With `as_supervised=True` come an image and a dictionary of `instances` and
    `classes`, as `fit` takes them.

    Args:
        module: The module that gives the class when it is asked for its name, where pickle and
            TensorFlow Datasets look for it.
        name: Name of the class.
        doc: Its docstring.
        splits: From `manual_dir`, and the name of the configuration or `None`, to the images of
            each split, which may be read while they are taken.
        description: What the data set is.
        instructions: What to put into `manual_dir`.
        homepage: Where the data set comes from; empty for none.
        citation: Its BibTeX entry; empty for none.
        configs: Names and descriptions of configurations.

    Returns:
        The class, a `tfds.core.GeneratorBasedBuilder`.

    Raises:
        ImportError: If tensorflow-datasets is missing.
    """
    tfds: Any = optional_import("tensorflow_datasets", "data")

    def _info(self: Any) -> Any:
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
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", {"instances": "instances", "classes": "classes"}),
            homepage=homepage,
            citation=citation,
        )

    def _split_generators(self: Any, dl_manager: Any) -> dict[str, Any]:
        config = self.builder_config.name if configs else None
        found = splits(Path(dl_manager.manual_dir), config)
        return {split: self._generate_examples(images) for split, images in found.items()}

    def _generate_examples(self: Any, images: NamedMaps) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, maps in images:
            yield key, {**maps._asdict(), "name": key}

    content = {
        "__doc__": doc,
        "__module__": module,
        "VERSION": tfds.core.Version("1.0.0"),
        "RELEASE_NOTES": {"1.0.0": "First release."},
        "MANUAL_DOWNLOAD_INSTRUCTIONS": instructions,
        "BUILDER_CONFIGS": [
            tfds.core.BuilderConfig(name=config, description=text) for config, text in configs
        ],
        "_info": _info,
        "_split_generators": _split_generators,
        "_generate_examples": _generate_examples,
    }
    return types.new_class(
        name, (tfds.core.GeneratorBasedBuilder,), exec_body=lambda body: body.update(content)
    )
