"""The embeddings of an image, before and after each loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from keras_rpe.models.image_array import rgb_array
from keras_rpe.visualization.displayed_image import displayed_image
from keras_rpe.visualization.embedding_colors import (
    Projection,
    check_projection,
    embedding_colors,
)
from keras_rpe.visualization.integer_argument import check_integer

if TYPE_CHECKING:
    from keras_rpe.models import InstanceSegmenter

MAX_SCALE = 16
"""Most pixels, along a side, that `embedding_loops` draws for one."""

_GAP = 6
_TITLE_HEIGHT = 16


def embedding_loops(
    model: InstanceSegmenter,
    image: Any,
    titles: bool = True,
    projection: Projection = "principal",
    seed: int = 0,
    scale: int = 1,
) -> np.ndarray:
    """Draw an image beside its embeddings before mean shift and after each of its loops.

    Equal colours mean equal embeddings in all of the maps, see `embedding_colors`. A background
    that the model does not embed is gray.

    Args:
        model: The model.
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
    check_projection(projection, seed)
    check_integer("scale", scale, 1, MAX_SCALE)
    array = rgb_array(image)
    height, width = array.shape[:2]
    embedding, scores = model.embed(array[None])
    loops = model.shift(embedding, scores, return_sequences=True)
    maps = [np.asarray(embedding)[0], *np.asarray(loops)[:, 0]]
    stride = model.output_stride
    if not model.embed_background:
        # Nothing is learned of the embedding there, and its colours would only distract.
        score = np.asarray(scores)[0, stride // 2 :: stride, stride // 2 :: stride].sum(axis=-1)
        maps = [x * (score >= model.decoder.foreground_threshold)[..., None] for x in maps]
    panels = [np.round(255 * displayed_image(array)).astype("uint8")]
    for colors in embedding_colors(*maps, projection=projection, seed=seed):
        large = colors.repeat(stride, axis=0).repeat(stride, axis=1)
        panels.append(large[:height, :width])
    names = ["image", "embedding", *(f"loop {t}" for t in range(1, len(maps)))]
    panels = [panel.repeat(scale, axis=0).repeat(scale, axis=1) for panel in panels]
    return _side_by_side(panels, names if titles else None)


def _side_by_side(panels: list[np.ndarray], names: list[str] | None) -> np.ndarray:
    if names:
        panels = [np.concatenate([_title(n, p.shape[1]), p]) for n, p in zip(names, panels)]
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, "uint8")
    parts = [part for panel in panels for part in (gap, panel)]
    return np.concatenate(parts[1:], axis=1)


def _title(text: str, width: int) -> np.ndarray:
    strip = Image.new("RGB", (width, _TITLE_HEIGHT), "white")
    ImageDraw.Draw(strip).text((2, 2), text, fill="black")
    return np.asarray(strip)
