"""Builders for TensorFlow Datasets.

Their base class comes with the extra `data` and takes seconds to import, so each class is made when
it is first asked for.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rpe.data import bsds, voc
from keras_rpe.data.coco import coco_instances, coco_panoptic
from keras_rpe.data.digits import CANVAS, SPLITS, digit_images, digit_scene
from keras_rpe.data.folder import label_folder
from keras_rpe.data.images import ImageFileError, LabelFolderError
from keras_rpe.data.labelled_images import LabelledImages
from keras_rpe.optional_import import optional_import

BSDS_ARCHIVE = "BSR_bsds500.tgz"
VOC_ARCHIVE = "VOCtrainval_11-May-2012.tar"
SBD_FOLDER = "benchmark_RELEASE"
SCENES = {"train": 10_000, "test": 2_000}
"""How many scenes of digits each split has."""
CONFIGS: dict[str, int | None] = {"plain": None, "void_255": 255}
"""The configurations of `LabelFolder`: the number that void pixels have in the files."""

_Examples = Iterable[tuple[Any, dict[str, Any]]]


def bsds500_source(folder: Path, unpacked: str | Path) -> Path:
    """The folder with `images` and `groundTruth`, from the archive if need be."""
    for found in (folder, folder / "BSR" / "BSDS500" / "data"):
        if (found / "images").is_dir() and (found / "groundTruth").is_dir():
            return found
    if (folder / BSDS_ARCHIVE).is_file():
        return bsds.unpack_bsds500(folder / BSDS_ARCHIVE, unpacked)
    raise LabelFolderError(
        f"{folder} holds neither images and groundTruth, nor these in BSR/BSDS500/data, "
        f"nor {BSDS_ARCHIVE}."
    )


def _bsds500_examples(folder: Path, config: str | None) -> dict[str, _Examples]:
    unpacked = tempfile.TemporaryDirectory()
    source = bsds500_source(folder, unpacked.name)
    parts = [part for part in bsds.SPLITS if (source / "images" / part).is_dir()]
    if not parts:
        raise LabelFolderError(f"{source / 'images'} has none of {', '.join(bsds.SPLITS)}.")

    def examples(part: str, unpacked: Any) -> _Examples:  # The folder lives as long as these.
        for pair in bsds.find_boundary_pairs(source, part):
            image, annotations = bsds.read_boundary_pair(pair)
            drawn = np.stack([one.boundaries for one in annotations])
            shares = drawn.mean(axis=0, dtype=np.float32)
            example = {"image": image, "shares": shares, "annotators": len(annotations)}
            yield pair.name, {**example, "name": pair.name}

    return {part: examples(part, unpacked) for part in parts}


def _coco_examples(
    kind: str, find: Callable[..., LabelledImages], folder: Path, config: str | None
) -> dict[str, _Examples]:
    splits = {}
    for file in sorted((folder / "annotations").glob(f"{kind}_*.json")):
        name = file.stem.removeprefix(f"{kind}_")
        if not (folder / name).is_dir():
            raise LabelFolderError(f"{folder / name} is missing: {file} needs this folder.")
        splits[name] = _examples(find(file, folder / name))
    if not splits:
        raise LabelFolderError(f"{folder} holds no annotations/{kind}_*.json.")
    return splits


def digits_source(folder: Path) -> Path | None:
    """The only .npz file of a folder; `None` stands for MNIST, which Keras downloads."""
    files = sorted(folder.glob("*.npz"))
    if len(files) > 1:
        raise LabelFolderError(
            f"{folder} holds {len(files)} .npz files, such as {files[0].name} and "
            f"{files[1].name}, not one."
        )
    return files[0] if files else None


def _digits_examples(folder: Path | None, config: str | None) -> dict[str, _Examples]:
    source = None if folder is None else digits_source(folder)

    def examples(images: list[np.ndarray], split: str) -> _Examples:
        for number in range(SCENES[split]):
            rng = np.random.default_rng([0, SPLITS.index(split), number])
            image, instances, classes = digit_scene(rng, images)
            maps = {"instances": instances.astype(np.uint8), "classes": classes.astype(np.uint8)}
            yield number, {"image": image, **maps, "count": int(instances.max())}

    return {split: examples(digit_images(source, split), split) for split in SPLITS}


def _label_folder_examples(folder: Path, config: str | None) -> dict[str, _Examples]:
    classes = "semantic/*" if (folder / "semantic").is_dir() else None
    found = label_folder(folder, classes=classes, ignore_label=CONFIGS[config or "plain"])
    return {"train": _examples(found)}


def _pascal_voc_examples(folder: Path, config: str | None) -> dict[str, _Examples]:
    sources = [one for one in (folder / "VOCdevkit", folder / VOC_ARCHIVE) if one.exists()]
    if not sources:
        raise LabelFolderError(f"{folder} holds neither VOCdevkit nor {VOC_ARCHIVE}.")
    parts = {split: voc.pascal_voc(sources[0], split) for split in voc.SPLITS}
    if (folder / SBD_FOLDER).is_dir():
        parts["train_sbd"] = voc.pascal_voc(sources[0], "train", folder / SBD_FOLDER)
    return {split: _examples(found) for split, found in parts.items()}


def _examples(found: LabelledImages) -> _Examples:
    for name, (image, instances, classes) in zip(found.names, found):
        if image.dtype != np.uint8:
            raise ImageFileError(
                f"The image {name} holds values of type {image.dtype}, not of 8 bits."
            )
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=-1)
        # Without a file of classes, all objects are of class 1.
        classes = instances.clip(max=1) if classes is None else classes
        maps = {"instances": instances, "classes": classes}
        yield name, {"image": np.ascontiguousarray(image[..., :3]), **maps, "name": name}


class _DataSet(NamedTuple):
    """What a builder needs; examples have an image and maps, and most have a name."""

    doc: str
    instructions: str
    examples: Callable[[Any, str | None], dict[str, _Examples]]  # of each split
    homepage: str = ""
    citation: str = ""
    configs: dict[str, str] = {}  # noqa: RUF012
    maps: dict[str, type] = {"instances": np.int32, "classes": np.int32}  # noqa: RUF012
    labels: Any = {"instances": "instances", "classes": "classes"}  # noqa: RUF012  # for `fit`
    integer: str | None = None  # the name of a feature
    side: int | None = None  # of all images
    needs_files: bool = True


_MAPS = """An example has `image`, uint8 (H, W, 3); `instances` and `classes`, int32 (H, W), -1
where they are void; and `name`. Nothing is downloaded.
"""

_DATA_SETS = {
    "Bsds500": _DataSet(
        """Photographs of BSDS500 with the share of annotators that saw a boundary at each pixel.

Four to nine people drew the boundaries into each. Splits are those of "train", "val" and "test"
that are there. An example has `image`, uint8 (H, W, 3); `shares`, float32 (H, W) in 0..1;
`annotators`, their number; and `name`. For non-commercial research and education. Nothing is
downloaded.
""",
        f"Put {BSDS_ARCHIVE}, or its folders images and groundTruth, into manual_dir.",
        _bsds500_examples,
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html",
        "Arbeláez et al., Contour Detection and Hierarchical Image Segmentation, PAMI 2011",
        maps={"shares": np.float32},
        labels="shares",
        integer="annotators",
    ),
    "CocoInstances": _DataSet(
        f"""Photographs of COCO with the object and the class of each pixel; crowds are void.

Each of the JSON files is a split, such as "train2017". {_MAPS}""",
        "Put annotations/instances_NAME.json and its images as NAME into manual_dir, for each "
        "split NAME such as train2017.",
        functools.partial(_coco_examples, "instances", coco_instances),
        "https://cocodataset.org",
        "Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
    ),
    "CocoPanoptic": _DataSet(
        f"""Photographs of COCO with the thing and the class, of things or stuff, of each pixel.

Each of the JSON files is a split, such as "train2017". {_MAPS}""",
        "Put annotations/panoptic_NAME.json, its PNG files as annotations/panoptic_NAME and its "
        "images as NAME into manual_dir, for each split NAME such as train2017.",
        functools.partial(_coco_examples, "panoptic", coco_panoptic),
        "https://cocodataset.org",
        "Kirillov et al., Panoptic Segmentation, CVPR 2019",
    ),
    "Digits": _DataSet(
        """Scenes of handwritten digits on black with the instance and the class of each pixel.

An image has 0 to 9 digits at nine places that overlap. A digit has the color of its class, and in
a third of the images all digits are of one class, so that only the instance tells them apart. They
are drawn from the .npz file in `manual_dir`, see `digits`, or from MNIST, which Keras downloads,
where there is none. The splits "train" and "test" share no image of a digit. An example has
`image`, uint8 (64, 64, 3); `instances`, uint8 (64, 64), 0 for the background and ids from 1;
`classes`, uint8 (64, 64), 0 for the background, 1 to 9 for these digits, and 10 for the 0; and
`count`, the number of digits that can be seen.
""",
        "Put an .npz file with x_train, y_train, x_test and y_test, or x and y, into manual_dir, "
        "or leave it empty for MNIST.",
        _digits_examples,
        "https://doi.org/10.1109/CVPR.2018.00940",
        "Kong & Fowlkes, Recurrent Pixel Embedding for Instance Grouping, CVPR 2018",
        maps={"instances": np.uint8, "classes": np.uint8},
        labels="instances",
        integer="count",
        side=CANVAS,
        needs_files=False,
    ),
    "LabelFolder": _DataSet(
        f"""A folder of label images with the instance and the class of each pixel.

`manual_dir` holds the folders `images`, `instances` and, where there are several classes,
`semantic`, as `label_folder` takes them; there is one split, "train". With the configuration
"void_255", 255 is void in the files, and -1 in the examples. {_MAPS}""",
        "Put the folders images and instances, and semantic for classes, into manual_dir.",
        _label_folder_examples,
        configs={name: f"Void pixels: {number}." for name, number in CONFIGS.items()},
    ),
    "PascalVoc": _DataSet(
        f"""Photographs of PASCAL VOC 2012 with the object and the class, of 20, of each pixel.

Splits are "train", "val" and "trainval", and with the Semantic Boundaries Dataset also "train_sbd",
to which that adds its images. {_MAPS}""",
        f"Put {VOC_ARCHIVE}, or its folder VOCdevkit, into manual_dir, and the folder {SBD_FOLDER} "
        "of SBD if you have it.",
        _pascal_voc_examples,
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        "Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2015",
    ),
}


def __getattr__(name: str) -> Any:
    # pickle and TensorFlow Datasets look for the classes here.
    if name in _DATA_SETS:
        return _builder_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _builder_class(name: str) -> type:
    tfds: Any = optional_import("tensorflow_datasets", "data")
    data_set = _DATA_SETS[name]

    def _info(self: Any) -> Any:
        side = data_set.side
        features = {"image": tfds.features.Image(shape=(side, side, 3))}
        for key, dtype in data_set.maps.items():
            features[key] = tfds.features.Tensor(
                shape=(side, side), dtype=dtype, encoding=tfds.features.Encoding.ZLIB
            )
        if data_set.integer is not None:
            features[data_set.integer] = tfds.features.Scalar(dtype=np.int32)
        if side is None:
            features["name"] = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description=data_set.doc,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", data_set.labels),
            homepage=data_set.homepage,
            citation=data_set.citation,
        )

    def _split_generators(self: Any, dl_manager: Any) -> dict[str, Any]:
        try:
            folder = Path(dl_manager.manual_dir)
        except AssertionError:  # It is missing or empty.
            if data_set.needs_files:
                raise
            folder = None
        config = self.builder_config.name if data_set.configs else None
        return data_set.examples(folder, config)

    def _generate_examples(self: Any) -> Iterator[Any]:
        return iter(())  # The splits bring theirs; the base class needs a method.

    configs = data_set.configs.items()
    content = {
        "__doc__": data_set.doc,
        "__module__": __name__,
        "VERSION": tfds.core.Version("1.0.0"),
        "RELEASE_NOTES": {"1.0.0": "First release."},
        "MANUAL_DOWNLOAD_INSTRUCTIONS": data_set.instructions,
        "BUILDER_CONFIGS": [tfds.core.BuilderConfig(name=k, description=v) for k, v in configs],
        "_info": _info,
        "_split_generators": _split_generators,
        "_generate_examples": _generate_examples,
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), content)
