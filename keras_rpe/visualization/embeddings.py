"""Embeddings as colors, before and after each loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from keras_rpe.arguments import check_choice, check_integer
from keras_rpe.results import rgb_array
from keras_rpe.visualization.overlay import displayed_image

if TYPE_CHECKING:
    from keras_rpe.models import InstanceSegmenter

Projection = Literal["principal", "random"]
PROJECTIONS = get_args(Projection)
MAX_SCALE = 16
_GAP, _TITLE_HEIGHT = 6, 16

# How many standard deviations of a uniformly random unit vector's coordinate make a full color.
_DEVIATIONS = 2.0


def embedding_colors(
    *embeddings: Any, projection: Projection = "principal", seed: int = 0
) -> list[np.ndarray]:
    """Give embeddings colors, such that equal colors in several maps mean the same embedding.

    Three dimensions become red, green and blue directly, -1 as 0 and 1 as 255; fewer leave the
    other colors at their middle. More are projected onto three axes, and what is then out of
    range is clipped:

    - `"principal"`: the principal axes of the last map, one scale for all maps, which shows the
      most of these maps.
    - `"random"`: three random orthogonal axes, the same for every call with this D and seed,
      whatever the maps hold, so that colors also compare between calls: images, or epochs.

    Args:
        *embeddings: Unit embeddings, each `(h, w, D)` with one D; sizes may differ.
        projection: `"principal"` or `"random"`, see above.
        seed: Seed of the random axes, at least 0.

    Returns:
        A uint8 RGB map `(h, w, 3)` for each.

    Raises:
        ValueError: If there is none, or one is not as above, or not finite, or if `projection` or
            `seed` is not as above.

    Source: random projections: Kong & Fowlkes (CVPR 2018), the pictures of their embeddings.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization import embedding_colors
        >>> red = np.broadcast_to(np.array([1.0, 0.0, 0.0]), (2, 2, 3))
        >>> embedding_colors(red)[0][0, 0].tolist()
        [255, 128, 128]
        >>> x = np.eye(16).reshape(4, 4, 16)
        >>> first, again = (embedding_colors(x, projection="random", seed=1)[0] for _ in range(2))
        >>> bool((first == again).all())
        True
    """
    check_choice("projection", projection, PROJECTIONS)
    check_integer("seed", seed, 0)
    maps = [np.asarray(embedding, dtype="float64") for embedding in embeddings]
    depth = maps[-1].shape[-1] if maps and maps[-1].ndim else 0
    if not maps or any(x.ndim != 3 or x.size == 0 or x.shape[-1] != depth for x in maps):
        raise ValueError(
            "`embeddings` must be at least one map (h, w, D), all of one D. "
            f"Received: shapes {[x.shape for x in maps]}"
        )
    if not all(np.isfinite(x).all() for x in maps):
        raise ValueError("`embeddings` must be finite. Received: NaN or infinite values")
    if depth <= 3:
        projected = [np.pad(x, ((0, 0), (0, 0), (0, 3 - depth))) for x in maps]
    elif projection == "random":
        axes = _random_axes(depth, seed)
        projected = [x @ axes * (depth**0.5 / _DEVIATIONS) for x in maps]
    else:
        mean, axes = _principal_axes(maps[-1].reshape(-1, depth))
        projected = [(x - mean) @ axes for x in maps]
        # A percentile, because a few outliers would leave the others gray.
        scale = np.percentile(np.abs(projected[-1]), 99.5)
        projected = [x / scale if scale > 1e-6 else np.zeros_like(x) for x in projected]
    return [np.round(255 * np.clip((x + 1) / 2, 0, 1)).astype("uint8") for x in projected]


def _random_axes(depth: int, seed: int) -> np.ndarray:
    """Three orthonormal axes `(D, 3)`, uniformly random."""
    axes, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(depth, 3)))
    # The signs that a decomposition takes differ between libraries.
    return axes * np.sign(np.diag(triangle))


def _principal_axes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `(D,)` and three axes of the largest variance `(D, 3)` of vectors `(n, D)`."""
    mean = vectors.mean(axis=0)
    centered = vectors - mean
    _, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, ::-1][:, :3]
    # The sign of an axis is arbitrary; fixing it gives the same colors on every machine.
    strongest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return mean, axes * np.sign(strongest)


def embedding_loops(
    model: InstanceSegmenter,
    image: Any,
    titles: bool = True,
    projection: Projection = "principal",
    seed: int = 0,
    scale: int = 1,
) -> np.ndarray:
    """Draw an image beside its embeddings before mean shift and after each of its loops.

    Equal colors mean equal embeddings in all of the maps, see `embedding_colors`. A background
    that the model does not embed is gray.

    Args:
        model: The model that embeds the image.
        image: One image as `InstanceSegmenter.predict_instances` takes it.
        titles: Whether to write above each part what it is.
        projection: `"principal"` or `"random"`, as in `embedding_colors`.
        seed: Seed of the random projection, at least 0.
        scale: Side of the square that is drawn for a pixel, from 1 to 16, for small images.

    Returns:
        uint8 RGB `(H', W', 3)`: the image and the maps in its size, times the scale, from left to
        right, on white, the titles in a strip above.

    Raises:
        ValueError: If the image is not one, or another argument is not as above.

    Source: Kong & Fowlkes (CVPR 2018), whose figures show embeddings loop by loop.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import InstanceSegmenter
        >>> from keras_rpe.visualization import embedding_loops
        >>> model = InstanceSegmenter(embedding_dim=4, iterations=1)
        >>> embedding_loops(model, np.eye(32), titles=False).shape
        (32, 108, 3)
    """
    check_choice("projection", projection, PROJECTIONS)
    check_integer("seed", seed, 0)
    check_integer("scale", scale, 1, MAX_SCALE)
    array = rgb_array(image)
    height, width = array.shape[:2]
    embedding, scores = model.embed(array[None])
    loops = model.shift(embedding, scores, return_sequences=True)
    maps = [np.asarray(embedding)[0], *np.asarray(loops)[:, 0]]
    stride = model.output_stride
    if not model.embed_background:
        # Nothing is learned of the embedding there, and its colors would only distract.
        score = np.asarray(scores)[0, stride // 2 :: stride, stride // 2 :: stride].sum(axis=-1)
        maps = [x * (score >= model.decoder.foreground_threshold)[..., None] for x in maps]
    panels = [np.round(255 * displayed_image(array)).astype("uint8")]
    for colors in embedding_colors(*maps, projection=projection, seed=seed):
        large = colors.repeat(stride, axis=0).repeat(stride, axis=1)
        panels.append(large[:height, :width])
    names = ["image", "embedding", *(f"loop {t}" for t in range(1, len(maps)))]
    parts: list[np.ndarray] = []
    for name, panel in zip(names, panels):
        large = panel.repeat(scale, axis=0).repeat(scale, axis=1)
        if titles:
            strip = Image.new("RGB", (large.shape[1], _TITLE_HEIGHT), "white")
            ImageDraw.Draw(strip).text((2, 2), name, fill="black")
            large = np.concatenate([np.asarray(strip), large])
        parts += [np.full((len(large), _GAP, 3), 255, "uint8"), large]
    return np.concatenate(parts[1:], axis=1)
