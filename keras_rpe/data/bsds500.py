"""BSDS500 as a `tf.data.Dataset` of images and the shares of annotators that saw a boundary."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_rpe.data.boundary_crops import (
    AnnotatedImage,
    annotated_image,
    draw_centre,
    draw_corner,
    plain_crop,
    turned_crop,
)
from keras_rpe.data.boundary_pairs import BoundaryPair, find_boundary_pairs, read_boundary_pair
from keras_rpe.data.counted_dataset import counted_dataset
from keras_rpe.data.crop_arguments import SEEDS, check_crop_arguments, chosen_pairs
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_folder_error import LabelFolderError

CACHE_BYTES = 2**30
"""How much decoded data `bsds500` keeps in memory; images beyond are read again."""

TURNS = 16
"""The number of angles of the augmentation, evenly spread over a full turn."""

_SHOWN = 20

Batch = tuple[np.ndarray, np.ndarray, str]


def bsds500(
    folder: str | Path,
    split: str | Sequence[str] = "train",
    *,
    crop_size: int | tuple[int, int] | None = 320,
    batch_size: int = 4,
    shuffle: bool = True,
    augment: bool = True,
    zoom: tuple[float, float] = (0.5, 1.5),
    repeats: int = 1,
    seed: int | None = 0,
    names: Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Read images and human boundaries of BSDS500 as batches for `fit`.

    The annotators of an image disagree. A pixel's share is the number of annotators whose line
    runs through it, divided by their number: 1 where all agree, 0 where nobody drew. Training
    takes pixels from a consensus upwards as boundary, those of share 0 as none, and leaves out
    those between, as well as the void ones of -1, which lie beyond the image.

    All files are read and checked before anything else, and up to 1 GiB of them stays in memory.
    Every epoch takes `repeats` crops of every image. Crops lie inside the image where they fit;
    beyond it, pixels are continued by reflection.

    Augmented crops are turned by one of 16 angles, mirrored in half of the cases, and enlarged or
    reduced. Each annotator's segmentation is turned, and its boundaries are drawn anew by the
    rule that the files follow, so that they stay whole and one pixel thin at every angle and size.

    The data set is for non-commercial research and education: Arbeláez et al., "Contour
    Detection and Hierarchical Image Segmentation", PAMI 2011.

    Args:
        folder: the folder that holds `images/SPLIT/*.jpg` and `groundTruth/SPLIT/*.mat`.
        split: "train", "val" or "test", or several of them.
        crop_size: side of the square crops, or (height, width), or None for whole images, which
            needs `batch_size=1` and `augment=False`.
        batch_size: crops per batch; the last batch of an epoch may be smaller.
        shuffle: new order and new crops in every epoch; False gives every epoch the same order
            and the same crops.
        augment: whether crops are turned, mirrored and enlarged.
        zoom: with `augment`, each crop is enlarged by a random factor from this range; factors
            below 1 reduce it and show more of the image.
        repeats: crops per image and epoch.
        seed: the same seed gives the same batches; None draws one from Python's generator.
        names: only these images, by their names without ending.

    Returns:
        A dataset of float32 images (B, h, w, 3) in 0..255 and float32 shares (B, h, w), each
        -1 or in 0..1, of known length.

    Raises:
        LabelFolderError: the folder cannot be used; the message lists every bad file.
        ValueError: an argument is not as above.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import scipy.io
        >>> from keras_rpe.data import bsds500, write_image
        >>> halves = np.repeat([[1, 2]], 16, axis=1).repeat(40, axis=0).astype("uint16")
        >>> drawn = halves != np.roll(halves, -1, axis=1)
        >>> truth = np.empty((1, 5), object)
        >>> truth[0, :] = [{"Segmentation": halves, "Boundaries": drawn}] * 5
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("images", "groundTruth"):
        ...         (Path(folder) / part / "train").mkdir(parents=True)
        ...     write_image(folder + "/images/train/plane.png", np.zeros((40, 32, 3), "uint8"))
        ...     scipy.io.savemat(folder + "/groundTruth/train/plane.mat", {"groundTruth": truth})
        ...     images, shares = next(iter(bsds500(folder, crop_size=24, batch_size=1)))
        >>> images.shape, shares.shape, float(shares[0].numpy().max())
        (TensorShape([1, 24, 24, 3]), TensorShape([1, 24, 24]), 1.0)
    """
    size = _checked_size(crop_size, batch_size, augment)
    check_crop_arguments(batch_size, repeats, zoom, seed)
    pairs = chosen_pairs(find_boundary_pairs(folder, split), names)
    seed = random.randrange(SEEDS) if seed is None else seed
    range_of_zoom = zoom if augment else None
    dataset = tf.data.Dataset.from_generator(
        _batches(pairs, _cached(pairs), size, range_of_zoom, batch_size, shuffle, repeats, seed),
        output_signature=(
            tf.TensorSpec((None, *(size or (None, None)), 3), tf.float32),
            tf.TensorSpec((None, *(size or (None, None))), tf.float32),
            tf.TensorSpec((), tf.string),
        ),
    )
    length = math.ceil(len(pairs) * repeats / batch_size)
    dataset = dataset.map(_without_problem)
    return counted_dataset(dataset, length)


def _checked_size(crop_size: Any, batch_size: int, augment: bool) -> tuple[int, int] | None:
    if not isinstance(augment, bool):
        raise ValueError(f"augment needs True or False. Received: augment={augment!r}")
    if crop_size is None:
        if batch_size != 1 or augment:
            raise ValueError(
                "crop_size=None needs batch_size=1 and augment=False, because whole images differ "
                f"in size. Received: batch_size={batch_size}, augment={augment}"
            )
        return None
    size = tuple(crop_size) if isinstance(crop_size, (tuple, list)) else (crop_size, crop_size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in size)
    if len(size) != 2 or not whole or not 1 <= min(size) <= max(size) <= 4096:
        raise ValueError(
            "crop_size needs a whole number from 1 to 4096, a pair (height, width) of them, or "
            f"None. Received: crop_size={crop_size!r}"
        )
    return size[0], size[1]


def _cached(pairs: list[BoundaryPair]) -> dict[str, AnnotatedImage]:
    """Read all files, and keep what fits into the memory set aside for them."""
    cache: dict[str, AnnotatedImage] = {}
    held = 0
    reasons = []
    for pair in pairs:
        try:
            item = annotated_image(*read_boundary_pair(pair))
        except (ImageFileError, OSError) as error:
            reasons.append(str(error).removesuffix("."))
            continue
        if held + item.nbytes <= CACHE_BYTES:
            cache[pair.name] = item
            held += item.nbytes
    if reasons:
        shown = "; ".join(reasons[:_SHOWN])
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        raise LabelFolderError(
            f"{len(reasons)} of {len(pairs)} images cannot be used: {shown}{more}."
        )
    return cache


def _batches(
    pairs: list[BoundaryPair],
    cache: dict[str, AnnotatedImage],
    size: tuple[int, int] | None,
    zoom: tuple[float, float] | None,
    batch_size: int,
    shuffle: bool,
    repeats: int,
    seed: int,
) -> Callable[[], Iterator[Batch]]:
    """Make the generator function of one dataset."""
    epoch = 0

    def generate() -> Iterator[Batch]:
        nonlocal epoch
        rng = np.random.default_rng([seed, epoch if shuffle else 0])
        epoch += 1
        order = np.tile(np.arange(len(pairs)), repeats)
        if shuffle:
            rng.shuffle(order)
        for start in range(0, len(order), batch_size):
            crops = []
            try:
                for index in order[start : start + batch_size]:
                    pair = pairs[index]
                    item = cache.get(pair.name) or annotated_image(*read_boundary_pair(pair))
                    crops.append(_crop(item, size, zoom, rng))
            except (ImageFileError, OSError) as error:
                shape = (1, *(size or (1, 1)))
                yield np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32), str(error)
                return
            images, shares = zip(*crops)
            yield np.stack(images), np.stack(shares), ""

    return generate


def _crop(
    item: AnnotatedImage,
    size: tuple[int, int] | None,
    zoom: tuple[float, float] | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    height, width = item.counts.shape
    if size is None:
        return plain_crop(item, (0, 0), (height, width))
    if zoom is None:
        return plain_crop(item, draw_corner((height, width), size, rng), size)
    angle = 2 * math.pi * int(rng.integers(TURNS)) / TURNS
    factor = math.exp(rng.uniform(*np.log(zoom)))
    mirror = bool(rng.random() < 0.5)
    centre = draw_centre((height, width), size, angle, factor, rng)
    return turned_crop(item, centre, size, angle, factor, mirror)


@tf.autograph.experimental.do_not_convert
def _without_problem(
    images: tf.Tensor, shares: tf.Tensor, problem: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    # An exception inside the generator would show its whole traceback; this shows a sentence.
    sound = tf.debugging.Assert(tf.equal(problem, ""), [problem])
    with tf.control_dependencies([sound]):
        return tf.identity(images), tf.identity(shares)
