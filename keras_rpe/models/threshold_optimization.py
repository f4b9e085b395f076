"""Choosing the thresholds of the decoder on images with known instances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_rpe.layers import InstanceDecoder
from keras_rpe.metrics import average_precision
from keras_rpe.models.compiled_function import compiled_function
from keras_rpe.models.image_label_pairs import image_label_pairs

# In the order in which they are searched, from the one that matters most.
_CANDIDATES: dict[str, tuple[float, ...]] = {
    "similarity_threshold": (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98),
    "foreground_threshold": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    "min_area": (0, 8, 12, 16, 20, 24, 32, 48, 64),
    "fragment_area": (0, 16, 32, 48, 64, 96, 128),
}
_MOST_ROUNDS = 3


class _Grouped(NamedTuple):
    embedding: Any
    scores: Any
    labels: np.ndarray


def optimize_thresholds(
    model: Any,
    images: Iterable[Any],
    labels: Iterable[Any],
    iou_thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8),
) -> tuple[InstanceDecoder, float]:
    """Find the decoder that segments images best.

    The thresholds are searched one after the other, again until none changes. The network and the
    grouping run once on each image, and their results stay in memory.

    Args:
        model: An `InstanceSegmenter`.
        images: Images as `InstanceSegmenter.predict_instances` takes them.
        labels: The instance map `(H, W)` of each. Pixels of the model's `ignore_label` are void.
        iou_thresholds: The average precision is the mean over these.

    Returns:
        A decoder with the thresholds found, and its average precision.

    Raises:
        ValueError: If there are no images, not as many label maps, or sizes differ.
    """
    grouped = _grouped(model, images, labels)
    found: dict[tuple[float, ...], float] = {}
    config = model.decoder.get_config()

    shapes = [(None, None, None, item.shape[-1]) for item in grouped[0][:2]]
    decode = compiled_function(
        lambda x, scores, *thresholds: {
            "labels": model.decoder(x, scores, **dict(zip(_CANDIDATES, thresholds)))["labels"]
        },
        [*shapes, *([()] * len(_CANDIDATES))],
    )

    def precision(settings: dict[str, Any]) -> float:
        fragment = settings["fragment_area"]
        settings = {
            **settings,
            "fragment_area": settings["min_area"] if fragment is None else fragment,
        }
        thresholds = tuple(settings[name] for name in _CANDIDATES)
        if thresholds not in found:
            values = [np.float32(value) for value in thresholds]
            labels = [
                ops.convert_to_numpy(decode(item.embedding, item.scores, *values)["labels"])[0]
                for item in grouped
            ]
            scores = average_precision(
                [item.labels for item in grouped],
                [
                    one[: len(item.labels), : item.labels.shape[1]]
                    for one, item in zip(labels, grouped)
                ],
                thresholds=iou_thresholds,
                ignore_label=model.ignore_label,
            )
            found[thresholds] = float(np.mean(scores))
        return found[thresholds]

    best = {name: config[name] for name in _CANDIDATES}
    for _ in range(_MOST_ROUNDS):
        before = dict(best)
        for name, candidates in _CANDIDATES.items():
            values = {
                value: precision({**best, name: value}) for value in (best[name], *candidates)
            }
            best[name] = max(values, key=lambda value: values[value])
        if best == before:
            break
    return InstanceDecoder.from_config({**config, **best}), precision(best)


def _grouped(model: Any, images: Iterable[Any], labels: Iterable[Any]) -> list[_Grouped]:
    def group(image: Any) -> dict[str, Any]:
        embedding, scores = model.embed(image)
        return {"embedding": model.shift(embedding, scores), "scores": scores}

    compiled = compiled_function(group, [(None, None, None, 3)])
    grouped: list[_Grouped] = []
    for array, truth in image_label_pairs(images, labels):
        result = compiled(array[None])
        grouped.append(_Grouped(result["embedding"], result["scores"], truth))
    return grouped
