"""The boundary detector: pixels in, how likely each is a boundary out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from keras_rpe.layers import (
    BilinearUpsampling,
    CropLike,
    FeatureFusion,
    PadToMultiple,
    SphericalEmbedding,
)
from keras_rpe.losses import BoundaryCrossEntropy, BoundaryPairLoss
from keras_rpe.models.backbones import make_backbone, pyramid
from keras_rpe.models.task import Task, compiled_function
from keras_rpe.ops import precise_dtype, thin_boundaries
from keras_rpe.results import Boundaries, rgb_array

Tensor = Any

# A linear map of unit vectors is bounded: its scores should come near 0 and 1 from the start.
_LOGIT_NORM = 4.0


@keras.saving.register_keras_serializable(package="keras_rpe")
class BoundaryDetector(Task):
    """Detect the boundaries of the objects in photographs by pixel embedding.

    Kong & Fowlkes (CVPR 2018), section 4. Each of the finest stages of a backbone, fused with the
    coarser ones, has an embedding on a sphere, trained with the pair loss on two groups: boundary
    or not. A linear map of each embedding gives a boundary map, and one of all embeddings another;
    the result is their mean.

    Args:
        backbone: A name ("efficientnet_lite0", "vgg16", "resnet50"), or a Keras model from images
            `(batch, H, W, 3)` in [0, 1] to features at strides that double, or a KerasHub or
            KerasCV backbone.
        embedding_dim: Dimension D of the embeddings.
        branches: Stages that have an embedding, from the finest on; default: all but the coarsest.
            The coarser ones are context.
        margin: Margin α of the pair loss.
        embedding_weight: Weight of the pair losses; with 0 the embeddings are trained by the
            cross-entropy of the boundary maps alone.
        consensus: Share of the annotators, in (0, 1], from which on a pixel is a boundary; pixels
            that fewer marked are left out of the training.
        negative_weight: Factor of the weight of pixels that are no boundary.
        fusion_filters: Width of the fused features.
        max_value: The value of pixels that stands for white.
        border: Over that many pixels from the sides of the image thinned boundaries fade to 0.
        backbone_weights: Weights of a backbone made by name: `None`, "imagenet" or a path.
        name: Name of the model.
        trainable: Whether training changes the weights.

    Input shape:
        Images `(batch, H, W, 3)` of any size, RGB in [0, max_value].

    Output shape:
        A dictionary for training: `logits`, those of each branch's map, finest first, and of the
        joint one, `(batch, H, W, branches + 1)`, and `embedding_S` of each branch's stride S,
        `(batch, h, w, D)`; h and w are H and W over S, rounded up to whole strides of the backbone.
        `predict` and `predict_boundaries` give boundaries instead.

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
    served_tables: ClassVar[dict[str, str]] = {}

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
        arguments = dict(locals())
        for other in ("self", "name", "trainable", "backbone_weights", "__class__"):
            del arguments[other]
        _check(embedding_weight=embedding_weight, max_value=max_value, border=border)
        network = (
            make_backbone(backbone, backbone_weights) if isinstance(backbone, str) else backbone
        )
        features, strides = pyramid(network)
        branches = max(len(strides) - 1, 1) if branches is None else branches
        if not 1 <= branches <= len(strides):
            raise ValueError(
                f"`branches` must be at least 1 and at most {len(strides)}, the stages of the "
                f"backbone. Received: branches={branches}"
            )
        _losses(strides[:branches], margin, consensus, negative_weight)  # Raise now, not later.
        # The heads keep float32 under mixed precision, as the pair loss does.
        precise = precise_dtype()
        images = keras.Input((None, None, 3), name="image")
        x = keras.layers.Rescaling(1.0 / max_value, name="rescaling")(images)
        maps = features(PadToMultiple(strides[-1], mode="reflect", name="pad")(x))
        maps = list(maps) if isinstance(maps, (list, tuple)) else [maps]
        fused = FeatureFusion(fusion_filters, return_pyramid=True, name="fusion")(maps)
        embeddings, scores = {}, []
        for stride, branch in zip(strides[:branches], fused):
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
            scores.append(BilinearUpsampling(stride, dtype=precise, name=f"up_{stride}")(x))
        joint = scores[0][..., 1:]
        for score in scores[1:]:
            joint = joint + score[..., 1:]
        logits = ops.concatenate([*(score[..., :1] for score in scores), joint], axis=-1)
        logits = CropLike(dtype=precise, name="crop")(logits, images)
        super().__init__(images, {"logits": logits, **embeddings}, name=name, trainable=trainable)

        self.backbone = network
        self.logit_network = keras.Model(images, logits, name="logit_network")
        self.strides = strides[:branches]
        self.margin = margin
        self.embedding_weight = embedding_weight
        self.consensus = consensus
        self.negative_weight = negative_weight
        self.border = border
        self._arguments = {**arguments, "branches": branches}
        self._compiled_detect: Any = None

    def compile(
        self, optimizer: Any = "adam", loss: Any = "auto", loss_weights: Any = None, **kwargs: Any
    ) -> None:
        """Configure training.

        Args:
            optimizer: Name or optimizer.
            loss: "auto" for the balanced cross-entropy of all maps (`logits`) and the pair loss of
                every embedding, the latter with the weight `embedding_weight`; or a dictionary
                with a loss for each output.
            loss_weights: Dictionary of a factor for each output.
            **kwargs: Of `keras.Model.compile`.
        """
        if isinstance(loss, str) and loss == "auto":
            loss = _losses(self.strides, self.margin, self.consensus, self.negative_weight)
            if loss_weights is None:
                weight = self.embedding_weight
                loss_weights = {name: 1.0 if name == "logits" else weight for name in loss}
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the sum of the losses of all outputs.

        Args:
            x: Images.
            y: Share of the annotators that drew a boundary, `(batch, H, W)` in [0, 1]; -1: void.
            y_pred: Outputs of the model.
            sample_weight: Weight of each image, `(batch,)`.
            training: Whether in training.
        """
        targets = dict.fromkeys(y_pred, y)
        if sample_weight is not None and not isinstance(sample_weight, dict):
            sample_weight = dict.fromkeys(targets, sample_weight)
        return super().compute_loss(
            x=x, y=targets, y_pred=y_pred, sample_weight=sample_weight, training=training
        )

    def detect(self, images: Tensor) -> dict[str, Tensor]:
        """Detect boundaries inside the graph: what is served.

        Args:
            images: `(batch, H, W, 3)`, in [0, max_value].

        Returns:
            `boundaries`, how likely each pixel is one, `(batch, H, W)`, float32 in [0, 1], and
            `thin`, the same on the crests and 0 elsewhere, as `thin_boundaries` gives it.
        """
        logits = self.logit_network(images, training=False)
        boundaries = ops.mean(ops.sigmoid(ops.cast(logits, "float32")), axis=-1)
        return {"boundaries": boundaries, "thin": thin_boundaries(boundaries, border=self.border)}

    def serve(self, images: Tensor) -> dict[str, Tensor]:
        """Detect boundaries in an exported model, as `detect` does."""
        return self.detect(images)

    def predict_step(self, data: Any) -> dict[str, Tensor]:
        """Detect the boundaries of one batch in `predict`."""
        return self.detect(data[0] if isinstance(data, (tuple, list)) else data)

    def predict_boundaries(self, image: Any) -> Boundaries:
        """Detect the boundaries in one image.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side, values in [0, max_value].

        Returns:
            How likely each pixel is a boundary, and the same on the crests only.

        Raises:
            ValueError: If it is not one such image, or not finite.
        """
        if self._compiled_detect is None:
            self._compiled_detect = compiled_function(self.detect, [(None, None, None, 3)])
        result = self._compiled_detect(rgb_array(image)[None])
        maps = (np.asarray(ops.convert_to_numpy(result[key])[0]) for key in ("boundaries", "thin"))
        return Boundaries(*maps)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the model can be made again."""
        config = dict(self._arguments)
        if not isinstance(config["backbone"], str):
            config["backbone"] = keras.saving.serialize_keras_object(self.backbone)
        return {**config, "name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Make a model from its configuration, with random weights."""
        config = dict(config)
        if isinstance(config.get("backbone"), dict):
            config["backbone"] = keras.saving.deserialize_keras_object(
                config["backbone"], custom_objects=custom_objects
            )
        return cls(**config)


def _losses(
    strides: Sequence[int], margin: float, consensus: float, negative_weight: float
) -> dict[str, keras.losses.Loss]:
    """The losses of `compile(loss="auto")`."""
    losses: dict[str, keras.losses.Loss] = {
        "logits": BoundaryCrossEntropy(consensus, negative_weight)
    }
    for stride in strides:
        losses[f"embedding_{stride}"] = BoundaryPairLoss(stride, consensus, margin)
    return losses


def _check(embedding_weight: float, max_value: float, border: int) -> None:
    if not 0.0 <= embedding_weight < float("inf"):
        raise ValueError(
            "`embedding_weight` must be finite and not negative. "
            f"Received: embedding_weight={embedding_weight}"
        )
    if not 0.0 < max_value < float("inf"):
        raise ValueError(
            f"`max_value` must be positive and finite. Received: max_value={max_value}"
        )
    if not (isinstance(border, int) and 0 <= border <= 64):
        raise ValueError(
            f"`border` must be an integer of at least 0 and at most 64. Received: border={border}"
        )
