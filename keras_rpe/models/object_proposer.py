"""The object proposer: pixels in, ranked masks of what may be objects out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize
from scipy.special import expit

from keras_rpe.arguments import check_numbers
from keras_rpe.layers import (
    InstanceDecoder,
    MeanShiftRNN,
    ProposalRanking,
    SeededMeanShift,
    SphericalEmbedding,
)
from keras_rpe.models.embedding_task import EmbeddingTask
from keras_rpe.models.instance_segmenter import SEED_LOOPS
from keras_rpe.models.task import compiled_function, lateral_initializer, network, precise_dtype
from keras_rpe.results import Proposals, check_max_proposals, image_label_pairs

Tensor = Any

_MAX_SCALES = 32
_IOU_THRESHOLDS = np.arange(0.5, 0.96, 0.05)
_PENALTY = 1.0  # On the weights of standardized features: that of one proposal.
_LEAST_SPREAD = 1e-6


@keras.saving.register_keras_serializable(package="keras_rpe")
class ObjectProposer(EmbeddingTask):
    """Propose masks of objects of any class, ranked by how likely each is one.

    Kong & Fowlkes (CVPR 2018), section 4. The network and its training are those of an
    `InstanceSegmenter` of one class. For prediction the same embeddings are grouped at several
    scales: by mean shift with every bandwidth, and then read off with every foreground threshold
    and every similarity threshold. All instances of all scales are ranked, and duplicates are
    dropped: see `keras_rpe.layers.ProposalRanking` for the score, a logistic regression on features
    of shape, size and contrast. `calibrate` fits it to images with known instances; before, four
    features count equally. The paper ranks by features of shape and size as well. Nothing is
    proposed for an image of one value.

    Arguments that are not listed are as in `InstanceSegmenter`.

    Args:
        backbone: A name ("efficientnet_lite0", "resnet50", "unet_small"), or a network as
            `InstanceSegmenter` takes it.
        bandwidths: Kernel widths δ of the mean shifts of prediction; training has the first.
        foreground_thresholds: Least foreground scores, in (0, 1), of the pixels of an instance.
        similarity_thresholds: Least similarities, in [0, 1], at which neighboring pixels belong
            together: higher ones give smaller instances.
        min_area: Instances of fewer pixels are dropped.
        max_instances: Instances of one scale at most; times the scales, at most 4096.
        max_proposals: Proposals of an image at most: length of the tables that are served.
        iou_threshold: Largest IoU of two proposals.

    Input shape:
        Images `(batch, H, W, C)` of any size and value range, C = 1, 3 or 4.

    Output shape:
        `model(images)` gives what training needs, the dictionary of an `InstanceSegmenter` of one
        class. `predict(images)` gives the dictionary that `serve` describes, and
        `predict_proposals(image)` the `Proposals` of one image.

    Training:
        Labels are integer instance maps `(batch, H, W)` or `(batch, H, W, 1)`, 0 = background, or a
        dictionary with them as `instances`. `compile(loss="auto")` takes cross-entropy for
        `semantic` and the margin loss for each other output.

    Raises:
        ValueError: If an argument is out of its range, or the backbone has no pyramid.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import ObjectProposer
        >>> model = ObjectProposer("unet_small", embedding_dim=8, iterations=1)
        >>> image = np.random.randint(0, 255, (32, 32, 3), "uint8")
        >>> proposals = model.predict_proposals(image, max_proposals=10)
        >>> proposals.masks.shape[1:], len(proposals) <= 10
        ((32, 32), True)
    """

    served_maps: ClassVar[dict[str, str]] = {}
    served_stacks: ClassVar[dict[str, str]] = {"label_maps": "int32"}
    served_tables: ClassVar[dict[str, str]] = {
        "scores": "float32",
        "scales": "int32",
        "ids": "int32",
        "boxes": "int32",
        "num_proposals": "int32",
    }

    def __init__(
        self,
        backbone: str | keras.Model = "efficientnet_lite0",
        embedding_dim: int = 24,
        iterations: int = 2,
        bandwidths: Sequence[float] = (0.2,),
        window_size: int | None = 16,
        inference_seeds: int = 512,
        inference_window_size: int | None = 128,
        foreground_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
        similarity_thresholds: Sequence[float] = (0.7, 0.96),
        min_area: int = 16,
        max_instances: int = 128,
        max_proposals: int = 256,
        iou_threshold: float = 0.8,
        margin: float = 0.5,
        neighborhood: float | None = 16.0,
        coordinates: bool = False,
        position_periods: Sequence[float] | None = (12.0, 24.0, 48.0),
        output_stride: int | None = None,
        embed_background: bool = False,
        fusion_filters: int = 32,
        percentiles: tuple[float, float] | None = (1.0, 99.8),
        ignore_label: int | None = None,
        backbone_weights: str | None = None,
        name: str = "object_proposer",
        trainable: bool = True,
    ) -> None:
        bandwidths = check_numbers("bandwidths", bandwidths)
        foreground = check_numbers("foreground_thresholds", foreground_thresholds, "(0, 1)")
        similarity = check_numbers("similarity_thresholds", similarity_thresholds, "[0, 1]")
        thresholds = list(itertools.product(foreground, similarity))
        scales = len(bandwidths) * len(thresholds)
        if scales > _MAX_SCALES:
            raise ValueError(
                "`bandwidths`, `foreground_thresholds` and `similarity_thresholds` must make at "
                f"most {_MAX_SCALES} scales. Received: {scales}"
            )
        precise = precise_dtype()
        decoder = InstanceDecoder(
            min_area=min_area, max_instances=max_instances, dtype=precise, name="decoder"
        )
        ranking = ProposalRanking(
            max_instances, max_proposals, iou_threshold, dtype=precise, name="ranking"
        )
        ranking.build((None, None, None, scales))
        super().__init__(
            network(backbone, backbone_weights),
            SphericalEmbedding(
                embedding_dim, coordinates, position_periods, dtype=precise, name="embedding"
            ),
            MeanShiftRNN(
                iterations,
                bandwidths[0],
                window_size=window_size,
                dtype=precise,
                name="mean_shift",
            ),
            num_classes=1,
            margin=margin,
            neighborhood=neighborhood,
            output_stride=output_stride,
            embed_background=embed_background,
            fusion_filters=fusion_filters,
            lateral_initializer=lateral_initializer(backbone_weights),
            percentiles=percentiles,
            ignore_label=ignore_label,
            name=name,
            trainable=trainable,
        )
        self.decoder = decoder
        self.ranking = ranking
        self.seeded_mean_shift = SeededMeanShift(
            inference_seeds,
            bandwidths[0],
            SEED_LOOPS,
            window_size=inference_window_size or window_size,
            dtype=precise,
            name="seeded_mean_shift",
        )
        self.bandwidths = bandwidths
        self.foreground_thresholds = foreground
        self.similarity_thresholds = similarity
        self.thresholds = thresholds
        self.num_scales = scales

    def serve(self, images: Tensor) -> dict[str, Tensor]:
        """Propose masks inside the graph, as `predict` and exported models do.

        Masks are not formed, so memory grows with the scales, not with the proposals.

        Args:
            images: `(batch, H, W, C)`, any value range.

        Returns:
            `label_maps`, int32 `(batch, H, W, scales)`, and the tables of `ProposalRanking`: the
            mask of proposal k is where `label_maps[..., scales[k]] == ids[k]`.
        """
        maps, scores, embedding = self._scales(images)
        height, width = ops.shape(images)[1], ops.shape(images)[2]
        tables = self.ranking(maps, scores, embedding, height=height, width=width)
        return {**tables, "label_maps": maps[:, :height, :width]}

    def _scales(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Label maps of all scales, foreground scores, embeddings; of the padded image."""
        pixels = self.normalized(images)
        embedding, class_scores = self.embed_normalized(pixels)
        # An image of one value shows nothing, whatever the lowest threshold makes of it.
        shows = ops.max(pixels, axis=(1, 2, 3)) > ops.min(pixels, axis=(1, 2, 3))
        shows = ops.cast(ops.reshape(shows, (-1, 1, 1)), class_scores.dtype)
        scores = class_scores[..., 0] * shows
        weights = None if self.embed_background else scores
        modes = [
            self.seeded_mean_shift(embedding, weights, bandwidth=bandwidth)
            for bandwidth in self.bandwidths
        ]
        modes = [mode for mode in modes for _ in self.thresholds]
        # The scales are read off like the images of one batch.
        batch = ops.shape(embedding)[0]
        foreground, similarity = (
            ops.reshape(
                ops.zeros((1, batch)) + np.array(values, "float32")[:, None],
                (self.num_scales * batch, 1, 1),
            )
            for values in zip(*(self.thresholds * len(self.bandwidths)))
        )
        labels = self.decoder(
            ops.concatenate(modes, axis=0),
            ops.concatenate([scores] * self.num_scales, axis=0),
            foreground_threshold=foreground,
            similarity_threshold=similarity,
        )["labels"]
        # Only the most certain instances of a scale are ranked.
        labels *= ops.cast(labels <= self.decoder.max_instances, "int32")
        height, width = ops.shape(labels)[1], ops.shape(labels)[2]
        maps = ops.reshape(labels, (self.num_scales, batch, height, width))
        return ops.transpose(maps, (1, 2, 3, 0)), scores, embedding

    def predict_proposals(self, image: Any, max_proposals: int | None = None) -> Proposals:
        """Propose masks of objects in one image.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side, any integer or float data type and value range.
            max_proposals: Take only the best so many; default: all, which are at most those of the
                model's argument of that name.

        Returns:
            Masks, scores and boxes, the best first.

        Raises:
            ValueError: If it is not one such image, or not finite, or `max_proposals` is no
                positive integer.
        """
        check_max_proposals(max_proposals)
        return Proposals.from_tables(self._serve_one(image), max_proposals)

    def calibrate(self, images: Iterable[Any], labels: Iterable[Any]) -> float:
        """Fit the score of the proposals to images with known instances.

        The score then estimates the share of the IoU thresholds 0.50, 0.55, …, 0.95 at which the
        mask matches an object, of which average recall is made: it is a logistic regression on the
        features of the proposals. It is saved with the weights of the model.

        Args:
            images: Images that were not trained on, as `predict_proposals` takes them. Some 20 with
                a few objects each will do.
            labels: The instance map `(H, W)` of each, 0 = background. Void pixels count neither
                way, and proposals of which half or more are void are left out.

        Returns:
            Spearman's rank correlation, in [-1, 1], of the new scores of these proposals with their
            IoU with an object; 0 where either are all equal.

        Raises:
            ValueError: If there are no images, not as many label maps, sizes differ, or nothing is
                proposed for any image.
        """
        describe = compiled_function(self, self._describe, [(None, None, None, 3)])
        described, ious = [], []
        for array, truth in image_label_pairs(images, labels):
            found = {key: ops.convert_to_numpy(v)[0] for key, v in describe(array[None]).items()}
            rows = self.ranking.max_instances
            best = best_overlaps(found["label_maps"], truth, rows, self.ignore_label)
            known = ~np.isnan(best)
            described.append(found["features"][known].astype("float64"))
            ious.append(best[known])
        features, overlaps = np.concatenate(described), np.concatenate(ious)
        if not len(features):
            raise ValueError(
                "`images` must be such that the model proposes something. "
                "Received: images without a proposal; train the model first"
            )
        weights, bias = fit_regression(features, overlaps)
        self.ranking.set_regression(weights.tolist(), bias)
        logits = features @ weights + bias
        if logits.std() == 0.0 or overlaps.std() == 0.0:
            return 0.0
        from scipy.stats import spearmanr  # a slow import, for this only

        return float(spearmanr(logits, overlaps).statistic)

    def _describe(self, images: Tensor) -> dict[str, Tensor]:
        """Label maps of all scales, and what the scores of their instances are made from."""
        maps, scores, embedding = self._scales(images)
        height, width = ops.shape(images)[1], ops.shape(images)[2]
        found = self.ranking.describe(maps, scores, embedding, height, width)
        return {"features": found["features"], "label_maps": maps[:, :height, :width]}


def best_overlaps(
    maps: np.ndarray, truth: np.ndarray, max_instances: int, ignore_label: int | None = None
) -> np.ndarray:
    """Largest IoU of each instance of label maps `(H, W, S)` with one of the true instances.

    float64 `(S · max_instances,)`, in the order of `label_overlaps`; NaN for instances that are not
    there, or void for half or more of their pixels. Void pixels are left out of all masks.
    """
    void = np.zeros(truth.shape, bool) if ignore_label is None else truth == ignore_label
    # Background is 0 even where no pixel has it.
    ids, dense = np.unique(np.where(void, 0, truth), return_inverse=True)
    dense = dense.reshape(truth.shape) + (0 if 0 in ids else 1)
    columns = int(dense.max(initial=0)) + 1
    true_areas = np.bincount(dense[~void], minlength=columns)
    best = np.full((maps.shape[-1], max_instances), np.nan)
    for s in range(maps.shape[-1]):
        labels = maps[..., s].astype("int64")
        shared = np.bincount(
            (labels * columns + dense)[~void], minlength=(max_instances + 1) * columns
        ).reshape(max_instances + 1, columns)[1:]
        areas = np.bincount(labels.ravel(), minlength=max_instances + 1)[1:]
        valid = shared.sum(axis=1)
        unions = valid[:, None] + true_areas - shared
        overlap = (shared / np.maximum(unions, 1))[:, 1:].max(axis=1, initial=0.0)
        counts = 2 * valid > areas
        best[s, counts] = overlap[counts]
    return best.ravel()


def fit_regression(features: np.ndarray, overlaps: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a logistic regression to the share of IoU thresholds that each proposal reaches.

    The target of a proposal is the share of the thresholds 0.50, 0.55, …, 0.95 up to its IoU with
    an object, so that the score estimates that share, of which average recall is made. The loss is
    the cross-entropy, with a small penalty on the squares of the weights of standardised features.
    """
    # 1e-9 so that an IoU of 0.6 reaches the threshold 0.6, as it is rounded.
    target = (overlaps[:, None] + 1e-9 >= _IOU_THRESHOLDS).mean(axis=1)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    used = spread > _LEAST_SPREAD
    x = np.where(used, (features - mean) / np.where(used, spread, 1.0), 0.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        logits = x @ weights + bias
        # Cross-entropy of σ(logits): log(1 + e^l) - target · l.
        value = np.sum(np.logaddexp(0.0, logits) - target * logits)
        value += 0.5 * _PENALTY * np.sum(parameters**2)
        error = expit(logits) - target
        gradient = np.append(x.T @ error, error.sum()) + _PENALTY * parameters
        return float(value), gradient

    start = np.zeros(x.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    weights = np.where(used, found[:-1] / np.where(used, spread, 1.0), 0.0)
    return weights, float(found[-1] - weights @ mean)
