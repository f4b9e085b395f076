"""The semantic segmenter: pixels in, the class of each out."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_rpe.models.embedding_task import EmbeddingTask, class_targets, default_losses
from keras_rpe.models.network import embedding_graph
from keras_rpe.models.task import compiled_function
from keras_rpe.results import ClassMap, rgb_array

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class SemanticSegmenter(EmbeddingTask):
    """Tell the class of every pixel, with the pair loss on classes as an auxiliary loss.

    Kong & Fowlkes (CVPR 2018), section 4. A backbone and a feature fusion feed two heads: class
    scores, trained by softmax cross-entropy, and unit embeddings, trained by the margin loss whose
    groups are the classes of the image, the background being one. The embeddings shape the features
    in training, and prediction is by the class scores alone.

    Args:
        backbone: A name ("unet_small", which trains on a CPU, "efficientnet_lite0", "resnet50"), or
            a Keras model from images `(batch, H, W, 3)` in [0, 1] to features at strides that
            double, or a KerasHub or KerasCV backbone.
        num_classes: Classes other than the background.
        grouping_weight: Weight of each margin loss beside the cross-entropy; on scenes of digits
            0.1 was better than 0 and 1. With 0 there is no margin loss, the embeddings stay as
            they are, and everything else is equal.
        embedding_dim: Dimension D of the embedding. Up to 2 D classes of an image can be pushed
            apart at margin 0.5; training warns if there are more.
        iterations: Loops of mean shift in training, each with a margin loss of its own; 0: none.
        bandwidth: Kernel width δ of the mean shift.
        window_size: Side of the windows of the mean shift, in cells of the embedding map; `None`:
            whole images.
        margin: Margin α of the loss.
        coordinates: Whether the embedding head sees each pixel's position in the whole image.
        output_stride: Stride of the class scores before they are enlarged, and of the embedding
            map; default: the finest of the backbone.
        fusion_filters: Width of the fused features.
        percentiles: Percentiles of each image that become 0 and 1; `None`: images are in [0, 1].
        ignore_label: Id of void pixels in the class maps, which no loss counts; no class has it.
        backbone_weights: Weights of a backbone made by name: `None`, "imagenet" or a path.
        name: Name of the model.
        trainable: Whether training changes the weights.

    Input shape:
        Images `(batch, H, W, C)` of any size and value range, C = 1, 3 or 4.

    Output shape:
        A dictionary for training: `embedding` and `shift_1` … `shift_T`, `(batch, h, w, D)`, and
        `semantic`, logits `(batch, H, W, num_classes + 1)`; h and w are H and W over the output
        stride, rounded up to whole strides of the backbone. `predict` and `predict_classes` give
        class maps instead.

    Raises:
        ValueError: If an argument is out of its range, or the backbone has no pyramid.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import SemanticSegmenter
        >>> model = SemanticSegmenter("unet_small", num_classes=2, embedding_dim=8)
        >>> model.compile("adam")
        >>> images = np.random.randint(0, 255, (2, 32, 32, 3), "uint8")
        >>> maps = np.random.randint(0, 3, (2, 32, 32))
        >>> sorted(model.fit(images, maps, verbose=0).history)
        ['embedding_loss', 'loss', 'semantic_loss']
        >>> model.predict_classes(images[0]).classes.shape
        (32, 32)
    """

    served_maps: ClassVar[dict[str, str]] = {"classes": "int32"}
    served_tables: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        backbone: str | keras.Model = "unet_small",
        num_classes: int = 1,
        grouping_weight: float = 0.1,
        embedding_dim: int = 24,
        iterations: int = 0,
        bandwidth: float = 0.2,
        window_size: int | None = 16,
        margin: float = 0.5,
        coordinates: bool = False,
        output_stride: int | None = None,
        fusion_filters: int = 32,
        percentiles: tuple[float, float] | None = (1.0, 99.8),
        ignore_label: int | None = None,
        backbone_weights: str | None = None,
        name: str = "semantic_segmenter",
        trainable: bool = True,
    ) -> None:
        arguments = dict(locals())
        for other in ("self", "name", "trainable", "backbone_weights", "__class__"):
            del arguments[other]
        _check(grouping_weight, num_classes, ignore_label)
        default_losses(["embedding"], margin, None)  # Raise now, not later.
        graph = embedding_graph(
            backbone,
            backbone_weights,
            embedding_dim=embedding_dim,
            num_classes=num_classes,
            iterations=None if type(iterations) is int and iterations == 0 else iterations,
            bandwidth=bandwidth,
            window_size=window_size,
            coordinates=coordinates,
            position_periods=None,
            output_stride=output_stride,
            embed_background=True,
            fusion_filters=fusion_filters,
            percentiles=percentiles,
        )
        super().__init__(graph, arguments, name, trainable)
        self.num_classes = num_classes
        self.grouping_weight = grouping_weight
        self.embedding_dim = embedding_dim
        self.embed_background = True
        self.margin = margin
        self.neighborhood = None
        self.ignore_label = ignore_label
        self._compiled_classify: Any = None
        if grouping_weight == 0:
            self.get_layer("embedding").trainable = False

    def compile(
        self, optimizer: Any = "adam", loss: Any = "auto", loss_weights: Any = None, **kwargs: Any
    ) -> None:
        """Configure training.

        Args:
            optimizer: Name or optimizer.
            loss: "auto" for cross-entropy on `semantic` and, unless `grouping_weight` is 0, the
                margin loss on `embedding` and every `shift_t`, each with that weight; or a
                dictionary with a loss for each output.
            loss_weights: Dictionary of a factor for each output.
            **kwargs: Of `keras.Model.compile`.
        """
        if isinstance(loss, str) and loss == "auto":
            names = self.output_names_of_losses if self.grouping_weight else ["semantic"]
            loss = default_losses(names, self.margin, None)
            if loss_weights is None:
                weight = self.grouping_weight
                loss_weights = {name: 1.0 if name == "semantic" else weight for name in loss}
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **kwargs)

    def _targets(self, y: Any, y_pred: dict[str, Tensor]) -> dict[str, Tensor]:
        return class_targets(
            y,
            y_pred,
            self.output_names_of_losses,
            self.output_stride,
            self.num_classes,
            self.ignore_label,
        )

    def classify(self, images: Tensor) -> dict[str, Tensor]:
        """Classify pixels inside the graph: what is served.

        Args:
            images: `(batch, H, W, C)`, any value range.

        Returns:
            `classes`, int32 `(batch, H, W)`, 0 = background.
        """
        logits = self.pixel_network(images, training=False)[1]
        logits = logits[:, : ops.shape(images)[1], : ops.shape(images)[2]]
        # Keras' argmax compares bit patterns, for which mobile runtimes have no operator.
        return {"classes": ops.cast(ops.top_k(logits, 1)[1][..., 0], "int32")}

    def serve(self, images: Tensor) -> dict[str, Tensor]:
        """Classify pixels in an exported model, as `classify` does."""
        return self.classify(images)

    def predict_step(self, data: Any) -> dict[str, Tensor]:
        """Classify the pixels of one batch in `predict`."""
        return self.classify(data[0] if isinstance(data, (tuple, list)) else data)

    def predict_classes(self, image: Any) -> ClassMap:
        """Classify the pixels of one image.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side, any integer or float data type and value range.

        Returns:
            The class map.

        Raises:
            ValueError: If it is not one such image, or not finite.
        """
        if self._compiled_classify is None:
            self._compiled_classify = compiled_function(self.classify, [(None, None, None, 3)])
        result = self._compiled_classify(rgb_array(image)[None])
        return ClassMap(np.asarray(ops.convert_to_numpy(result["classes"])[0]))


def _check(grouping_weight: float, num_classes: int, ignore_label: int | None) -> None:
    if isinstance(grouping_weight, bool) or not 0.0 <= grouping_weight < math.inf:
        raise ValueError(
            "`grouping_weight` must be finite and not negative. "
            f"Received: grouping_weight={grouping_weight}"
        )
    if ignore_label is not None and 0 <= ignore_label <= num_classes:
        raise ValueError(
            f"`ignore_label` must be None or no class, which are 0 to {num_classes}. "
            f"Received: ignore_label={ignore_label}"
        )
