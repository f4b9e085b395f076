"""Pictures: instances on the image, embeddings as colours, precision over recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from skimage.color import hsv2rgb
from skimage.segmentation import find_boundaries

from keras_rpe.models.image_array import rgb_array
from keras_rpe.precision_recall_picture import precision_recall_picture

if TYPE_CHECKING:
    from keras_rpe.models import InstanceSegmenter

__all__ = [
    "embedding_colors",
    "embedding_loops",
    "overlay_instances",
    "precision_recall_picture",
]

_GOLDEN_RATIO = (5**0.5 - 1) / 2
_GAP = 6
_TITLE_HEIGHT = 16


def overlay_instances(image: Any, labels: Any, alpha: float = 0.4) -> np.ndarray:
    """Draw instances over their image, each in a colour of its own with its boundary.

    The image is stretched for display so that its percentiles 1 and 99.8 become black and white.

    Args:
        image: `(H, W)` gray, `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, any finite values.
        labels: Integers `(H, W)`, 0 = background, every other number one instance.
        alpha: Opacity of the colours in [0, 1]; boundaries, one pixel wide and inside of the
            instances, are opaque.

    Returns:
        uint8 RGB `(H, W, 3)`.

    Raises:
        ValueError: If an argument is not as above.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization import overlay_instances
        >>> labels = np.zeros((16, 20), "int32")
        >>> labels[2:9, 3:12] = 1
        >>> picture = overlay_instances(np.zeros((16, 20), "uint16"), labels)
        >>> picture.shape, picture.dtype.name, picture[labels == 0].max()
        ((16, 20, 3), 'uint8', np.uint8(0))
    """
    picture = _display(image)
    labels = np.asarray(labels)
    if labels.shape != picture.shape[:2] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers of the image's shape {picture.shape[:2]}. "
            f"Received: labels of shape {labels.shape} and dtype {labels.dtype}"
        )
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"`alpha` must be in [0, 1]. Received: alpha={alpha}")
    ids, inverse = np.unique(labels, return_inverse=True)
    colors = _instance_colors(ids)[inverse.reshape(labels.shape)]
    opacity = np.where(labels != 0, alpha, 0.0)
    opacity[find_boundaries(labels, mode="inner") & (labels != 0)] = 1.0
    mixed = picture + opacity[..., None] * (colors - picture)
    return np.round(255 * mixed).astype("uint8")


def embedding_colors(*embeddings: Any) -> list[np.ndarray]:
    """Give embeddings colours, such that equal colours in several maps mean the same embedding.

    Three dimensions become red, green and blue directly, -1 as 0 and 1 as 255; fewer leave the
    other colours at their middle. More are projected onto the three principal axes of the last
    map, one scale for all maps, and what lies outside of it is clipped.

    Args:
        *embeddings: Unit embeddings, each `(h, w, D)` with one D; sizes may differ.

    Returns:
        A uint8 RGB map `(h, w, 3)` for each.

    Raises:
        ValueError: If there is none, or one is not as above, or not finite.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization import embedding_colors
        >>> red = np.broadcast_to(np.array([1.0, 0.0, 0.0]), (2, 2, 3))
        >>> embedding_colors(red)[0][0, 0].tolist()
        [255, 128, 128]
    """
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
    else:
        mean, axes = _principal_axes(maps[-1].reshape(-1, depth))
        projected = [(x - mean) @ axes for x in maps]
        # A percentile, because a few outliers would leave the others gray.
        scale = np.percentile(np.abs(projected[-1]), 99.5)
        projected = [x / scale if scale > 1e-6 else np.zeros_like(x) for x in projected]
    return [np.round(255 * np.clip((x + 1) / 2, 0, 1)).astype("uint8") for x in projected]


def embedding_loops(model: InstanceSegmenter, image: Any, titles: bool = True) -> np.ndarray:
    """Draw an image beside its embeddings before mean shift and after each of its loops.

    Equal colours mean equal embeddings in all of the maps, see `embedding_colors`. A background
    that the model does not embed is gray.

    Args:
        model: The model.
        image: One image as `InstanceSegmenter.predict_instances` takes it.
        titles: Whether to write above each part what it is.

    Returns:
        uint8 RGB `(H', W', 3)`: the image and the maps in its size from left to right, on white,
        the titles in a strip above.

    Raises:
        ValueError: If the image is not one.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import InstanceSegmenter
        >>> from keras_rpe.visualization import embedding_loops
        >>> model = InstanceSegmenter(embedding_dim=4, iterations=1)
        >>> embedding_loops(model, np.eye(32), titles=False).shape
        (32, 108, 3)
    """
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
    panels = [np.round(255 * _display(array)).astype("uint8")]
    for colors in embedding_colors(*maps):
        large = colors.repeat(stride, axis=0).repeat(stride, axis=1)
        panels.append(large[:height, :width])
    names = ["image", "embedding", *(f"loop {t}" for t in range(1, len(maps)))]
    return _side_by_side(panels, names if titles else None)


def _display(image: Any) -> np.ndarray:
    """One image as float64 RGB in [0, 1] for display."""
    array = rgb_array(image).astype("float64")
    low, high = np.percentile(array, (1.0, 99.8))
    if not high > low:
        low, high = array.min(), array.max()
    return np.clip((array - low) / (high - low), 0, 1) if high > low else np.zeros_like(array)


def _instance_colors(ids: np.ndarray) -> np.ndarray:
    """Bright colours `(n, 3)` in [0, 1]; steps of the golden ratio keep near ids apart in hue."""
    hue = np.mod(ids.astype("float64") * _GOLDEN_RATIO, 1.0)
    saturation = np.where(ids % 3 == 0, 0.55, 0.95)
    value = np.where(ids % 2 == 0, 1.0, 0.85)
    return hsv2rgb(np.stack([hue, saturation, value], axis=-1)[None])[0]


def _principal_axes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `(D,)` and three axes of the largest variance `(D, 3)` of vectors `(n, D)`."""
    mean = vectors.mean(axis=0)
    centered = vectors - mean
    _, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, ::-1][:, :3]
    # The sign of an axis is arbitrary; fixing it gives the same colours on every machine.
    strongest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return mean, axes * np.sign(strongest)


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
