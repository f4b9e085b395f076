"""The object proposer: pixels in, ranked masks of what may be objects out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from scipy.stats import spearmanr

from keras_rpe.layers import InstanceDecoder, ProposalRanking, SeededMeanShift
from keras_rpe.models.compiled_function import compiled_function
from keras_rpe.models.different_numbers import different_numbers
from keras_rpe.models.embedding_graph import embedding_graph
from keras_rpe.models.embedding_task import EmbeddingTask
from keras_rpe.models.image_array import rgb_array
from keras_rpe.models.proposal_calibration import described_proposals, fit_regression
from keras_rpe.models.proposals import Proposals, check_max_proposals
from keras_rpe.models.segmenter_losses import default_losses
from keras_rpe.ops import precise_dtype

Tensor = Any

_SEED_LOOPS = 3
_MAX_SCALES = 32


@keras.saving.register_keras_serializable(package="keras_rpe")
class ObjectProposer(EmbeddingTask):
    """Propose masks of objects of any class, ranked by how likely each is one.

    Kong & Fowlkes (CVPR 2018), section 4. The network and its training are those of an
    `InstanceSegmenter` of one class. For prediction the same embeddings are grouped at several
    scales: by mean shift with every bandwidth, and then read off with every foreground threshold
    and every similarity threshold. All instances of all scales are ranked, and duplicates are
    dropped: see `keras_rpe.layers.ProposalRanking` for the score, a logistic regression on features
    of shape, size and contrast. `calibrate` fits it to images with known instances; before, four
    features count equally. The paper ranks by features of shape and size as well.

    Args:
        backbone: A name ("efficientnet_lite0", "resnet50", "unet_small"), or a Keras model from
            images `(batch, H, W, 3)` in [0, 1] to features at strides that double, or a KerasHub or
            KerasCV backbone.
        embedding_dim: Dimension D of the embedding.
        iterations: Loops of mean shift in training, each with a loss of its own.
        bandwidths: Kernel widths δ of the mean shifts of prediction; training has the first.
        foreground_thresholds: Least foreground scores, in (0, 1), of the pixels of an instance.
        similarity_thresholds: Least similarities, in [0, 1], at which neighbouring pixels belong
            together: higher ones give smaller instances.
        min_area: Instances of fewer pixels are dropped.
        max_instances: Instances of one scale at most; times the scales, at most 4096.
        max_proposals: Proposals of an image at most: length of the tables that are served.
        iou_threshold: Largest IoU of two proposals.
        window_size: Side of the windows of the mean shift of training, in cells of the embedding
            map; `None`: whole images.
        inference_seeds: Seeds at most, in each window, of the mean shift of prediction.
        inference_window_size: Side of the windows when predicting; `None`: as in training.
        margin: Margin α of the loss.
        neighborhood: Distance, in cells, up to which the loss pushes instances apart; `None`: any.
        coordinates: Whether the embedding head sees each pixel's position in the whole image.
        position_periods: Periods, in cells, of the rotation of the embedding with position, which
            tells like objects at different places apart; `None`: none.
        output_stride: Stride of the embedding map; default: the finest of the backbone.
        embed_background: Whether the background is an instance of the pair loss.
        fusion_filters: Width of the fused features.
        percentiles: Percentiles of each image that become 0 and 1; `None`: images are in [0, 1].
        ignore_label: Id of void pixels in the instance maps.
        backbone_weights: Weights of a backbone made by name: `None`, "imagenet" or a path.
        name: Name of the model.
        trainable: Whether training changes the weights.

    Input shape:
        Images `(batch, H, W, C)` of any size and value range, C = 1, 3 or 4.

    Output shape:
        A dictionary for training, as that of an `InstanceSegmenter` of one class. `predict` and
        `propose` give proposals instead.

    Raises:
        ValueError: If an argument is out of its range, or the backbone has no pyramid.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import ObjectProposer
        >>> model = ObjectProposer("unet_small", embedding_dim=8, iterations=1)
        >>> image = np.random.randint(0, 255, (32, 32, 3), "uint8")
        >>> proposals = model.propose(image, max_proposals=10)  # after model.fit(images, maps)
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
        foreground_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
        similarity_thresholds: Sequence[float] = (0.7, 0.96),
        min_area: int = 16,
        max_instances: int = 128,
        max_proposals: int = 256,
        iou_threshold: float = 0.8,
        window_size: int | None = 16,
        inference_seeds: int = 512,
        inference_window_size: int | None = 128,
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
        arguments = dict(locals())
        for other in ("self", "name", "trainable", "backbone_weights", "__class__"):
            del arguments[other]
        bandwidths = different_numbers(
            "bandwidths", bandwidths, "positive", lambda x: 0.0 < x < math.inf
        )
        foreground = different_numbers(
            "foreground_thresholds", foreground_thresholds, "in (0, 1)", lambda x: 0.0 < x < 1.0
        )
        similarity = different_numbers(
            "similarity_thresholds", similarity_thresholds, "in [0, 1]", lambda x: 0.0 <= x <= 1.0
        )
        scales = len(bandwidths) * len(foreground) * len(similarity)
        if scales > _MAX_SCALES:
            raise ValueError(
                "`bandwidths`, `foreground_thresholds` and `similarity_thresholds` must make at "
                f"most {_MAX_SCALES} scales. Received: {scales}"
            )
        default_losses(["embedding"], margin, neighborhood)  # Raise now, not later.
        arguments |= {
            "bandwidths": bandwidths,
            "foreground_thresholds": foreground,
            "similarity_thresholds": similarity,
        }
        precise = precise_dtype()
        decoder = InstanceDecoder(
            min_area=min_area, max_instances=max_instances, dtype=precise, name="decoder"
        )
        ranking = ProposalRanking(
            max_instances, max_proposals, iou_threshold, dtype=precise, name="ranking"
        )
        ranking.build((None, None, None, scales))
        graph = embedding_graph(
            backbone,
            backbone_weights,
            embedding_dim=embedding_dim,
            num_classes=1,
            iterations=iterations,
            bandwidth=bandwidths[0],
            window_size=window_size,
            coordinates=coordinates,
            position_periods=position_periods,
            output_stride=output_stride,
            embed_background=embed_background,
            fusion_filters=fusion_filters,
            percentiles=percentiles,
        )
        super().__init__(graph, arguments, name, trainable)

        self.decoder = decoder
        self.ranking = ranking
        self.seeded_mean_shift = SeededMeanShift(
            inference_seeds,
            bandwidths[0],
            _SEED_LOOPS,
            window_size=inference_window_size or window_size,
            dtype=precise,
            name="seeded_mean_shift",
        )
        self.num_classes = 1
        self.bandwidths = bandwidths
        self.thresholds = list(itertools.product(foreground, similarity))
        self.embedding_dim = embedding_dim
        self.embed_background = embed_background
        self.margin = margin
        self.neighborhood = neighborhood
        self.ignore_label = ignore_label
        self._compiled_group: Any = None

    @property
    def num_scales(self) -> int:
        """Label maps of each image, of which the proposals are taken."""
        return len(self.bandwidths) * len(self.thresholds)

    def group(self, images: Tensor) -> dict[str, Tensor]:
        """Propose masks inside the graph: what is served.

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

    def describe(self, images: Tensor) -> dict[str, Tensor]:
        """Give all instances of all scales and what their scores are made from, inside the graph.

        Args:
            images: `(batch, H, W, C)`, any value range.

        Returns:
            `label_maps`, as `group` gives them, and `features`, float32
            `(batch, scales · max_instances, len(ranking.feature_names))`.
        """
        maps, scores, embedding = self._scales(images)
        height, width = ops.shape(images)[1], ops.shape(images)[2]
        found = self.ranking.describe(maps, scores, embedding, height, width)
        return {"features": found["features"], "label_maps": maps[:, :height, :width]}

    def _scales(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Label maps of all scales, foreground scores, embeddings; of the padded image."""
        embedding, class_scores = self.embed(images)
        scores = class_scores[..., 0]
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
        height, width = ops.shape(labels)[1], ops.shape(labels)[2]
        maps = ops.reshape(labels, (self.num_scales, batch, height, width))
        return ops.transpose(maps, (1, 2, 3, 0)), scores, embedding

    def serve(self, images: Tensor) -> dict[str, Tensor]:
        """Propose masks in an exported model, as `group` does."""
        return self.group(images)

    def predict_step(self, data: Any) -> dict[str, Tensor]:
        """Propose masks for one batch in `predict`."""
        return self.group(data[0] if isinstance(data, (tuple, list)) else data)

    def propose(self, image: Any, max_proposals: int | None = None) -> Proposals:
        """Propose masks of objects in one image.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side, any integer or float data type and value range.
            max_proposals: The best so many; default: all, which are at most those of the model's
                argument of that name.

        Returns:
            Masks, scores and boxes, the best first.

        Raises:
            ValueError: If it is not one such image, or not finite, or `max_proposals` is no
                positive integer.
        """
        check_max_proposals(max_proposals)
        if self._compiled_group is None:
            self._compiled_group = compiled_function(self.group, [(None, None, None, 3)])
        result = self._compiled_group(rgb_array(image)[None])
        tables = {key: ops.convert_to_numpy(value) for key, value in result.items()}
        return Proposals.from_tables(tables, max_proposals)

    def calibrate(self, images: Iterable[Any], labels: Iterable[Any]) -> float:
        """Fit the score of the proposals to images with known instances.

        The score then estimates the share of the IoU thresholds 0.50, 0.55, …, 0.95 at which the
        mask matches an object: see `keras_rpe.models.proposal_calibration.fit_regression`. It is
        saved with the weights of the model.

        Args:
            images: Images that were not trained on, as `propose` takes them. Some 20 with a few
                objects each will do.
            labels: The instance map `(H, W)` of each, 0 = background.

        Returns:
            Spearman's rank correlation, in [-1, 1], of the new scores of these proposals with their
            IoU with an object; 0 where either are all equal.

        Raises:
            ValueError: If there are no images, not as many label maps, sizes differ, or nothing is
                proposed for any image.
        """
        features, overlaps = described_proposals(self, images, labels)
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
        return float(spearmanr(logits, overlaps).statistic)
