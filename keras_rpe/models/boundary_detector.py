"""The boundary detector: pixels in, how likely each is a boundary out."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from keras_rpe.arguments import check_integer, check_number, check_numbers
from keras_rpe.layers import (
    BilinearUpsampling,
    CropLike,
    FeatureFusion,
    PadToMultiple,
    SphericalEmbedding,
)
from keras_rpe.losses import BoundaryCrossEntropy, BoundaryPairLoss
from keras_rpe.models.backbones import pyramid
from keras_rpe.models.task import (
    Task,
    label_map,
    lateral_initializer,
    named,
    network,
    precise_dtype,
)
from keras_rpe.ops.boundaries import thin_boundaries
from keras_rpe.ops.maps import resample
from keras_rpe.results import Boundaries

Tensor = Any

# A linear map of unit vectors is bounded: its scores should come near 0 and 1 from the start.
_LOGIT_NORM = 4.0
_PARTS = 1024  # Scales are fractions of this denominator where sizes are computed.


@keras.saving.register_keras_serializable(package="keras_rpe")
class BoundaryDetector(Task):
    """Detect the boundaries of the objects in photographs by pixel embedding.

    Kong & Fowlkes (CVPR 2018), section 4. Each of the finest stages of a backbone, fused with the
    coarser ones, has an embedding on a sphere, trained with the pair loss on two groups: boundary
    or not. A linear map of each embedding gives a boundary map, and one of all embeddings another;
    the result is their mean.

    Arguments that are not listed are as in `InstanceSegmenter`.

    Args:
        backbone: A name ("efficientnet_lite0", "vgg16", "resnet50"), or a network as
            `InstanceSegmenter` takes it.
        embedding_dim: Dimension D of the embeddings.
        branches: Stages that have an embedding, from the finest on; default: all but the coarsest.
            The coarser ones are context.
        margin: Margin α of the pair loss.
        embedding_weight: Weight of the pair losses; with 0 only the cross-entropy of the boundary
            maps trains the embeddings.
        consensus: Share of the annotators, in (0, 1], from which on a pixel is a boundary; pixels
            that fewer marked are left out of the training.
        negative_weight: Factor of the weight of pixels that are not a boundary.
        max_value: The value of pixels that stands for white.
        border: Over that many pixels from the sides of the image thinned boundaries fade to 0.

    Input shape:
        Images `(batch, H, W, 3)` of any size, RGB in [0, max_value].

    Output shape:
        `model(images)` gives what training needs, a dictionary: `logits`, those of each branch's
        map, finest first, and of the joint one, `(batch, H, W, branches + 1)`, and `embedding_S` of
        each branch's stride S, `(batch, h, w, D)`; h and w are H and W over S, rounded up to whole
        strides of the backbone. `predict(images)` gives `boundaries` and `thin`, float32
        `(batch, H, W)`, and `predict_boundaries(image)` the `Boundaries` of one image.

    Training:
        Labels are the share of the annotators that drew a boundary, in [0, 1], -1 where that is
        void, `(batch, H, W)` or `(batch, H, W, 1)`. `compile(loss="auto")` takes
        `BoundaryCrossEntropy` for `logits` and `BoundaryPairLoss` for each embedding, the latter
        with the weight `embedding_weight`.

    Raises:
        ValueError: If an argument is out of its range, or the backbone has no pyramid.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import BoundaryDetector
        >>> model = BoundaryDetector("unet_small")
        >>> model.compile("adam")
        >>> images = np.random.randint(0, 255, (2, 32, 32, 3), "uint8")
        >>> shares = np.zeros((2, 32, 32), "float32")
        >>> shares[:, 16], shares[:, 15] = 0.8, 0.2
        >>> history = model.fit(images, shares, verbose=0)
        >>> model.predict_boundaries(images[0]).probabilities.shape
        (32, 32)
    """

    served_maps: ClassVar[dict[str, str]] = {"boundaries": "float32", "thin": "float32"}

    def __init__(
        self,
        backbone: str | keras.Model = "efficientnet_lite0",
        embedding_dim: int = 3,
        branches: int | None = None,
        margin: float = 0.1,
        embedding_weight: float = 1.0,
        consensus: float = 0.3,
        negative_weight: float = 1.1,
        fusion_filters: int = 32,
        max_value: float = 255.0,
        border: int = 0,
        backbone_weights: str | None = None,
        name: str = "boundary_detector",
        trainable: bool = True,
    ) -> None:
        check_number("embedding_weight", embedding_weight, "[0, inf)")
        check_number("max_value", max_value)
        check_integer("border", border, 0, 64)
        check_number("margin", margin, "[0, 1)")
        check_number("consensus", consensus, "(0, 1]")
        check_number("negative_weight", negative_weight)
        backbone = network(backbone, backbone_weights)
        features, strides = pyramid(backbone)
        branches = max(len(strides) - 1, 1) if branches is None else branches
        branches = check_integer("branches", branches, 1, len(strides))
        strides, coarsest = strides[:branches], strides[-1]
        precise = precise_dtype()  # The heads keep float32 under mixed precision, as the loss does.

        images = keras.Input((None, None, 3), name="image")
        x = keras.layers.Rescaling(1.0 / max_value, name="rescaling")(images)
        maps = features(PadToMultiple(coarsest, mode="reflect", name="pad")(x))
        maps = list(maps) if isinstance(maps, (list, tuple)) else [maps]
        initializer = lateral_initializer(backbone_weights)
        fused = FeatureFusion(fusion_filters, True, initializer, name="fusion")(maps)
        embeddings, own, parts = {}, [], []
        for stride, branch in zip(strides, fused):
            embed = SphericalEmbedding(embedding_dim, dtype=precise, name=f"embed_{stride}")
            embeddings[f"embedding_{stride}"] = x = embed(branch)
            # The score of the branch and its part of the joint one. To enlarge the linear map of an
            # embedding is the same as to map the enlarged one, and less work.
            x = keras.layers.Conv2D(
                2,
                1,
                kernel_initializer=keras.initializers.Orthogonal(_LOGIT_NORM),
                dtype=precise,
                name=f"scores_{stride}",
            )(x)
            x = BilinearUpsampling(stride, dtype=precise, name=f"up_{stride}")(x)
            own.append(named(f"own_{stride}", lambda x: x[..., :1], x))
            parts.append(named(f"part_{stride}", lambda x: x[..., 1:], x))
        # One sum of two after the other: files number the weights by the depth of their layers.
        joint = parts[0]
        for stride, part in zip(strides[1:], parts[1:]):
            joint = named(f"joint_{stride}", operator.add, joint, part)
        logits = named("join", _concatenated, *own, joint)
        logits = CropLike(dtype=precise, name="crop")(logits, images)
        super().__init__(images, {"logits": logits, **embeddings}, name=name, trainable=trainable)

        self.backbone = backbone
        self.max_value = max_value
        self.logit_network = keras.Model(images, logits, name="logit_network")
        self.branches = branches
        self.strides = strides
        self.margin = margin
        self.embedding_weight = embedding_weight
        self.consensus = consensus
        self.negative_weight = negative_weight
        self.border = border

    def _auto_losses(self) -> tuple[dict[str, keras.losses.Loss], dict[str, float] | None]:
        losses: dict[str, keras.losses.Loss] = {
            "logits": BoundaryCrossEntropy(self.consensus, self.negative_weight)
        }
        for stride in self.strides:
            name = f"embedding_{stride}"
            losses[name] = BoundaryPairLoss(stride, self.consensus, self.margin)
        return losses, {key: 1.0 if key == "logits" else self.embedding_weight for key in losses}

    def _targets(self, y: Any, y_pred: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict.fromkeys(y_pred, label_map(y, y_pred["logits"]))

    def serve(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> dict[str, Tensor]:
        """Detect boundaries inside the graph, as `predict` and exported models do.

        Args:
            images: `(batch, H, W, 3)`, in [0, max_value].
            scales: Sizes of the images of which boundaries are detected, as factors; the result is
                the mean.

        Returns:
            `boundaries`, how likely each pixel is one, `(batch, H, W)`, float32 in [0, 1], and
            `thin`, the same on the crests and 0 elsewhere, as `thin_boundaries` gives it.
        """
        boundaries = sum(self._boundaries_at(scale, images) for scale in scales) / len(scales)
        return {"boundaries": boundaries, "thin": thin_boundaries(boundaries, border=self.border)}

    def _boundaries_at(self, scale: float, images: Tensor) -> Tensor:
        """The boundaries of images of that size, `(batch, H, W)`."""
        height, width = ops.shape(images)[1], ops.shape(images)[2]
        if scale != 1.0:
            # Whole numbers, which are known on every backend before the graph is built.
            rows, columns = (
                (side * round(_PARTS * scale) + _PARTS - 1) // _PARTS for side in (height, width)
            )
            step = ops.ones_like(images[:, 0, 0, 0]) / scale
            images = self.max_value * resample(images / self.max_value, step, rows, columns)
        logits = self.logit_network(images, training=False)
        found = ops.mean(ops.sigmoid(ops.cast(logits, "float32")), axis=-1)
        if scale == 1.0:
            return found
        return resample(ops.expand_dims(found, -1), 1.0 / step, height, width)[..., 0]

    def predict_boundaries(self, image: Any, scales: Sequence[float] = (1.0,)) -> Boundaries:
        """Detect the boundaries in one image.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side, values in [0, max_value].
            scales: One or more factors in [0.1, 4]: boundaries are detected in the image enlarged
                or reduced by each, and the maps averaged. `(0.5, 1, 1.5)` finds more than 1 alone,
                and takes about three times as long.

        Returns:
            How likely each pixel is a boundary, and the same on the crests only.

        Raises:
            ValueError: If it is not one such image, or not finite, or a scale is not as above.
        """
        found = self._serve_one(image, scales=check_numbers("scales", scales, "[0.1, 4]"))
        return Boundaries(found["boundaries"][0], found["thin"][0])


def _concatenated(*maps: Tensor) -> Tensor:
    return ops.concatenate(maps, axis=-1)
