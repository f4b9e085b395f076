"""The instance segmenter: pixels in, instances out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_rpe.layers import InstanceDecoder, MeanShiftRNN, SeededMeanShift, SphericalEmbedding
from keras_rpe.metrics import average_precision
from keras_rpe.models.embedding_task import EmbeddingTask
from keras_rpe.models.task import compiled_function, network, precise_dtype
from keras_rpe.results import Instances, image_label_pairs

Tensor = Any

# Enough for seeds, which lie among the pixels of their group from the start.
SEED_LOOPS = 3


@keras.saving.register_keras_serializable(package="keras_rpe")
class InstanceSegmenter(EmbeddingTask):
    """Segment the instances of an image by recurrent pixel embedding.

    Kong & Fowlkes (CVPR 2018). A backbone and a feature fusion feed two heads: unit embeddings,
    which mean shift then groups, and class scores of each pixel. The margin loss is taken on the
    embeddings before and after every loop, so the grouping is trained through. The decoder is
    part of the graph as well.

    Args:
        backbone: A name ("unet_small", which trains on a CPU, "mobilenet_v2", "resnet50"), or a
            Keras model from images `(batch, H, W, 3)` in [0, 1] to features at strides that
            double, or a KerasHub or KerasCV backbone.
        embedding_dim: Dimension D of the embedding.
        num_classes: Classes other than the background. With 1, all instances are of one class.
        iterations: Loops of mean shift in training, each with a loss of its own.
        bandwidth: Kernel width δ of the mean shift.
        step_size: η in (0, 1] of the mean shift.
        trainable_bandwidth: Whether δ is learned.
        window_size: Side of the windows that are grouped each for itself, in cells of the
            embedding map, so that time grows linearly with the image; `None`: whole images.
        inference_seeds: Seeds at most, in each window, of the mean shift of prediction, whose time
            is linear in the pixels and in the seeds that it takes (see `SeededMeanShift`); `None`:
            the mean shift of training, which compares all pixels of a window, 10 to 100 times the
            time.
        inference_iterations: Loops at most when predicting; default: 3, or as in training if
            there are no seeds.
        inference_window_size: Side of the windows when predicting, larger by default, since an
            object that lies in two windows may come apart; `None`: as in training.
        inference_window_overlap: Cells of its neighbors that a window sees when seeds group it.
            Objects up to this size are whole where they lie in two windows.
        margin: Margin α of the loss. Training warns if images have more instances than it can push
            apart in `embedding_dim` dimensions; see `keras_rpe.margins`.
        neighborhood: Distance, in cells of the embedding map, up to which the loss pushes
            instances apart (see `CosineMarginLoss`), so that hundreds fit on the sphere: those
            further apart are told apart by their places. `None`: any distance, as in the paper.
        coordinates: Whether the embedding head sees each pixel's position in the whole image.
        position_periods: Periods, in cells of the embedding map, of the rotation of the embedding
            with position, which tells like objects at different places apart and lets a network
            trained on crops segment images of any size; `None`: none, as in the paper, and for an
            odd `embedding_dim`.
        embed_background: Whether the background is an instance of the pair loss and attracts
            pixels in the mean shift, as in the paper; otherwise that is left to the class scores,
            which then weigh the pixels of the mean shift. Needed for `position_periods`, which
            leave the background without one place.
        output_stride: Stride of the embedding map; default: the finest of the backbone.
        fusion_filters: Width of the fused features.
        percentiles: Percentiles of each image that become 0 and 1; `None`: images are in [0, 1].
        ignore_label: Id of void pixels in the instance maps; in the class maps as well, where it is
            no class. Void in an instance map is void for the class scores too.
        decoder: An `InstanceDecoder`; default: one with its default thresholds.
        backbone_weights: Weights of a backbone made by name: `None`, "imagenet" or a path.
        name: Name of the model.
        trainable: Whether training changes the weights.

    Input shape:
        Images `(batch, H, W, C)` of any size and value range, C = 1, 3 or 4.

    Output shape:
        `model(images)` gives what training needs, a dictionary: `embedding` and `shift_1` …
        `shift_T`, `(batch, h, w, D)`, and `semantic`, logits `(batch, H, W, num_classes + 1)`; h
        and w are H and W over the output stride, rounded up to whole strides of the backbone.
        `predict(images)` gives the dictionary of `InstanceDecoder`: `labels`, `scores`, `boxes`,
        `classes` and `num_instances`; `predict_instances(image)` the `Instances` of one image.

    Training:
        Labels are integer instance maps `(batch, H, W)` or `(batch, H, W, 1)`, 0 = background; with
        several classes, a dictionary of two such maps, `instances` and `classes`.
        `compile(loss="auto")` takes cross-entropy for `semantic` and the margin loss for each other
        output.

    Raises:
        ValueError: If an argument is out of its range, or the backbone has no pyramid.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import InstanceSegmenter
        >>> model = InstanceSegmenter(backbone="unet_small", embedding_dim=8, iterations=2)
        >>> model.compile("adam")
        >>> images = np.random.randint(0, 255, (2, 32, 32, 3), "uint8")
        >>> maps = np.random.randint(0, 3, (2, 32, 32))
        >>> history = model.fit(images, maps, verbose=0)
        >>> model.predict_instances(images[0]).labels.shape
        (32, 32)
    """

    mean_shift: MeanShiftRNN
    served_maps: ClassVar[dict[str, str]] = {"labels": "int32"}
    served_tables: ClassVar[dict[str, str]] = {
        "scores": "float32",
        "boxes": "int32",
        "classes": "int32",
        "num_instances": "int32",
    }

    def __init__(
        self,
        backbone: str | keras.Model = "unet_small",
        embedding_dim: int = 24,
        num_classes: int = 1,
        iterations: int = 2,
        bandwidth: float = 0.2,
        step_size: float = 1.0,
        trainable_bandwidth: bool = False,
        window_size: int | None = 16,
        inference_seeds: int | None = 512,
        inference_iterations: int | None = None,
        inference_window_size: int | None = 128,
        inference_window_overlap: int = 16,
        margin: float = 0.5,
        neighborhood: float | None = 16.0,
        coordinates: bool = False,
        position_periods: Sequence[float] | None = (12.0, 24.0, 48.0),
        output_stride: int | None = None,
        embed_background: bool = False,
        fusion_filters: int = 32,
        percentiles: tuple[float, float] | None = (1.0, 99.8),
        ignore_label: int | None = None,
        decoder: InstanceDecoder | None = None,
        backbone_weights: str | None = None,
        name: str = "instance_segmenter",
        trainable: bool = True,
    ) -> None:
        # The heads and the grouping keep float32 under mixed precision: they are a small part of
        # the work, and 16 bits are too few for the sums of a kernel.
        precise = precise_dtype()
        super().__init__(
            network(backbone, backbone_weights),
            SphericalEmbedding(
                embedding_dim, coordinates, position_periods, dtype=precise, name="embedding"
            ),
            MeanShiftRNN(
                iterations,
                bandwidth,
                step_size,
                trainable_bandwidth,
                window_size=window_size,
                dtype=precise,
                name="mean_shift",
            ),
            num_classes=num_classes,
            margin=margin,
            neighborhood=neighborhood,
            output_stride=output_stride,
            embed_background=embed_background,
            fusion_filters=fusion_filters,
            percentiles=percentiles,
            ignore_label=ignore_label,
            name=name,
            trainable=trainable,
        )
        self.decoder = decoder or InstanceDecoder(dtype=precise, name="decoder")
        self.seeded_mean_shift = None
        if inference_seeds is not None:
            self.seeded_mean_shift = SeededMeanShift(
                inference_seeds,
                bandwidth,
                inference_iterations or SEED_LOOPS,
                window_size=inference_window_size or window_size,
                window_overlap=inference_window_overlap,
                dtype=precise,
                name="seeded_mean_shift",
            )
        self.inference_iterations = inference_iterations
        self.inference_window_size = inference_window_size
        self.inference_window_overlap = inference_window_overlap

    def serve(self, images: Tensor, max_instances: int | None = None) -> dict[str, Tensor]:
        """Segment images inside the graph, as `predict` and exported models do.

        Args:
            images: `(batch, H, W, C)`, any value range.
            max_instances: Length of the tables; default: that of the decoder.

        Returns:
            As `InstanceDecoder`.
        """
        embedding, scores = self.embed(images)
        modes = self.shift(embedding, scores)
        result = self.decoder(modes, scores, max_instances=max_instances)
        height, width = ops.shape(images)[1], ops.shape(images)[2]
        return {**result, "labels": result["labels"][:, :height, :width]}

    def shift(self, embedding: Tensor, scores: Tensor, return_sequences: bool = False) -> Tensor:
        """Group embeddings with the loops and windows of prediction.

        Args:
            embedding: Unit embeddings, as `embed` gives them.
            scores: Class scores, as `embed` gives them.
            return_sequences: Whether to return the embeddings after every loop, of the mean shift
                of training then.

        Returns:
            `(batch, h, w, D)`, or `(loops, batch, h, w, D)`.
        """
        weights = None if self.embed_background else ops.sum(scores, axis=-1)
        if self.seeded_mean_shift is not None and not return_sequences:
            return self.seeded_mean_shift(
                embedding, weights, bandwidth=self.mean_shift.current_bandwidth
            )
        return self.mean_shift(
            embedding,
            weights,
            iterations=self.inference_iterations,
            window_size=self.inference_window_size,
            return_sequences=return_sequences,
        )

    def predict_instances(self, image: Any) -> Instances:
        """Segment one image.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side, any integer or float data type and value range.

        Returns:
            The instances: label map, scores, boxes, classes.

        Raises:
            ValueError: If it is not one such image, or not finite.
        """
        rows = self.decoder.max_instances
        tables = self._serve_one(image, max_instances=rows)
        count = int(tables["num_instances"][0])
        if count > rows:  # The tables grow until all fit, by factors of two: each is a new trace.
            rows <<= (-(-count // rows) - 1).bit_length()
            tables = self._serve_one(image, max_instances=rows)
        return Instances.from_tables(tables)

    def optimize_thresholds(
        self,
        images: Iterable[Any],
        labels: Iterable[Any],
        iou_thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8),
    ) -> float:
        """Set the thresholds of the decoder to those that segment some images best.

        Args:
            images: Images that were not trained on, as `predict_instances` takes them.
            labels: The instance map `(H, W)` of each.
            iou_thresholds: The average precision is the mean over these.

        Returns:
            That average precision, in [0, 1], with the thresholds found. They are saved with the
            model, and those of `model.decoder`.

        Raises:
            ValueError: If there are no images, not as many label maps, or sizes differ.
        """
        self.decoder, precision = best_decoder(self, images, labels, iou_thresholds)
        # Both have the old decoder in their graphs.
        self._compiled_serve, self.predict_function = MappingProxyType({}), None
        return precision


# In the order in which they are searched, from the one that matters most.
_CANDIDATES: dict[str, tuple[float, ...]] = {
    "similarity_threshold": (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98),
    "foreground_threshold": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    "min_area": (0, 8, 12, 16, 20, 24, 32, 48, 64),
    "fragment_area": (0, 16, 32, 48, 64, 96, 128),
}
_MOST_ROUNDS = 3


def best_decoder(
    model: Any, images: Iterable[Any], labels: Iterable[Any], iou_thresholds: Sequence[float]
) -> tuple[InstanceDecoder, float]:
    """Find the decoder of `InstanceSegmenter.optimize_thresholds`, and its average precision.

    The thresholds are searched one after the other, again until none changes. The network and the
    grouping run once on each image, and their results stay in memory.
    """

    def group(image: Any) -> dict[str, Any]:
        embedding, scores = model.embed(image)
        return {"embedding": model.shift(embedding, scores), "scores": scores}

    run = compiled_function(model, group, [(None, None, None, 3)])
    pairs = [(run(image[None]), truth) for image, truth in image_label_pairs(images, labels)]
    grouped = [(result["embedding"], result["scores"]) for result, _ in pairs]
    truths = [truth for _, truth in pairs]
    found: dict[tuple[float, ...], float] = {}
    config = model.decoder.get_config()

    shapes = [(None, None, None, array.shape[-1]) for array in grouped[0]]
    decode = compiled_function(
        model,
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
            maps = [ops.convert_to_numpy(decode(*one, *values)["labels"])[0] for one in grouped]
            scores = average_precision(
                truths,
                [one[: len(truth), : truth.shape[1]] for one, truth in zip(maps, truths)],
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
