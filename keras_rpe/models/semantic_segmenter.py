"""The semantic segmenter: pixels in, the class of each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.layers import MeanShiftRNN, SphericalEmbedding
from keras_rpe.models.embedding_task import EmbeddingTask
from keras_rpe.models.task import lateral_initializer, network, precise_dtype
from keras_rpe.results import ClassMap

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class SemanticSegmenter(EmbeddingTask):
    """Tell the class of every pixel, with the pair loss on classes as an auxiliary loss.

    Kong & Fowlkes (CVPR 2018), section 4. A backbone and a feature fusion feed two heads: class
    scores, trained by softmax cross-entropy, and unit embeddings, trained by the margin loss whose
    groups are the classes of the image, the background being one. The embeddings shape the features
    in training, and prediction uses only the class scores.

    Arguments that are not listed are as in `InstanceSegmenter`.

    Args:
        backbone: A name ("unet_small", which trains on a CPU, "efficientnet_lite0", "resnet50"), or
            a network as `InstanceSegmenter` takes it.
        embedding_dim: Dimension D of the embedding. Up to 2 D classes of an image can be pushed
            apart at margin 0.5; training warns if there are more.
        num_classes: Classes other than the background.
        class_names: Names of these classes; commands print them. `None`: their numbers.
        iterations: Loops of mean shift in training, each with a margin loss of its own; 0: none.
        grouping_weight: Weight of each margin loss beside the cross-entropy; on scenes of digits
            0.1 was better than 0 and 1. With 0 there is no margin loss, the embeddings stay as
            they are, and everything else is equal.
        output_stride: Stride of the class scores before they are enlarged, and of the embedding
            map; default: the finest of the backbone.
        ignore_label: Id of void pixels in the class maps, which no loss counts; no class has it.

    Input shape:
        Images `(batch, H, W, C)` of any size and value range, C = 1, 3 or 4.

    Output shape:
        `model(images)` gives what training needs, a dictionary: `embedding` and `shift_1` …
        `shift_T`, `(batch, h, w, D)`, and `semantic`, logits `(batch, H, W, num_classes + 1)`; h
        and w are H and W over the output stride, rounded up to whole strides of the backbone.
        `predict(images)` gives `classes`, int32 `(batch, H, W)`, and `predict_classes(image)` a
        `ClassMap` of one image.

    Training:
        Labels are integer class maps `(batch, H, W)` or `(batch, H, W, 1)`, 0 = background, or a
        dictionary with them as `classes`. `compile(loss="auto")` takes cross-entropy for `semantic`
        and, unless `grouping_weight` is 0, the margin loss for the other outputs.

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

    def __init__(
        self,
        backbone: str | keras.Model = "unet_small",
        embedding_dim: int = 24,
        num_classes: int = 1,
        iterations: int = 0,
        bandwidth: float = 0.2,
        window_size: int | None = 16,
        margin: float = 0.5,
        grouping_weight: float = 0.1,
        coordinates: bool = False,
        output_stride: int | None = None,
        fusion_filters: int = 32,
        percentiles: tuple[float, float] | None = (1.0, 99.8),
        ignore_label: int | None = None,
        backbone_weights: str | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "semantic_segmenter",
        trainable: bool = True,
    ) -> None:
        check_number("grouping_weight", grouping_weight, "[0, inf)")
        check_integer("iterations", iterations, 0)
        if ignore_label is not None and 0 <= ignore_label <= num_classes:
            raise ValueError(
                f"`ignore_label` must be None or no class, which are 0 to {num_classes}. "
                f"Received: ignore_label={ignore_label}"
            )
        precise = precise_dtype()
        mean_shift = None
        if iterations:
            mean_shift = MeanShiftRNN(
                iterations, bandwidth, window_size=window_size, dtype=precise, name="mean_shift"
            )
        super().__init__(
            network(backbone, backbone_weights),
            SphericalEmbedding(
                embedding_dim, coordinates=coordinates, dtype=precise, name="embedding"
            ),
            mean_shift,
            num_classes=num_classes,
            margin=margin,
            neighborhood=None,
            output_stride=output_stride,
            embed_background=True,
            fusion_filters=fusion_filters,
            lateral_initializer=lateral_initializer(backbone_weights),
            percentiles=percentiles,
            ignore_label=ignore_label,
            class_names=class_names,
            name=name,
            trainable=trainable,
        )
        self.grouping_weight = grouping_weight
        if grouping_weight == 0:
            self.get_layer("embedding").trainable = False

    def _auto_losses(self) -> tuple[dict[str, keras.losses.Loss], dict[str, float] | None]:
        losses, _ = super()._auto_losses()
        if self.grouping_weight == 0:
            losses = {"semantic": losses["semantic"]}
        return losses, {key: 1.0 if key == "semantic" else self.grouping_weight for key in losses}

    def _instances_and_classes(self, y: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(y, dict):
            if "classes" not in y:
                raise ValueError(
                    "The labels must be class maps, or a dictionary with them as 'classes'. "
                    f"Received: a dictionary of {sorted(y)}"
                )
            y = y["classes"]
        classes = self._class_map(y, images)
        return classes, classes

    def serve(self, images: Tensor) -> dict[str, Tensor]:
        """Classify pixels inside the graph, as `predict` and exported models do.

        Args:
            images: `(batch, H, W, C)`, any value range.

        Returns:
            `classes`, int32 `(batch, H, W)`, 0 = background.
        """
        logits = self.pixel_network(self.normalized(images), training=False)[1]
        logits = logits[:, : ops.shape(images)[1], : ops.shape(images)[2]]
        # Keras' argmax compares bit patterns, for which mobile runtimes have no operator.
        return {"classes": ops.cast(ops.top_k(logits, 1)[1][..., 0], "int32")}

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
        return ClassMap(self._serve_one(image)["classes"][0])
