"""What the tasks share whose embeddings are trained through the loops of the grouping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.layers import (
    BilinearUpsampling,
    CropLike,
    FeatureFusion,
    ImageNormalization,
    MeanShiftRNN,
    ObjectSize,
    PadToMultiple,
    SphericalEmbedding,
    SubpixelConv2DTranspose,
)
from keras_rpe.losses import CosineMarginLoss, ObjectSizeLoss
from keras_rpe.models.backbones import pyramid
from keras_rpe.models.checks import VOID, CapacityCheck, ClassCheck, LabelCheck
from keras_rpe.models.task import Task, label_map, named, precise_dtype
from keras_rpe.ops.labels import log_diameters

Tensor = Any

MAX_CLASSES = 65_535
# Pixels drawn for each margin loss: pairs are the square of it, and twice as many learn no better.
_SAMPLES = 512
_SIZE_STRIDE = 16  # Of the features from which the sizes of objects are estimated, if there are.


class EmbeddingTask(Task):
    """Base of the task models with outputs `embedding`, `shift_1` … `shift_T` and `semantic`.

    The arguments are those of `InstanceSegmenter`, with the heads in place of their settings:
    `embed` is that of the embedding and `mean_shift` the loops of the grouping, or `None`.

    Attributes:
        pixel_network: The network from images, as `normalized` gives them, to embeddings before
            mean shift and logits, of the image padded to whole strides.
        size_network: The network from the same to what `object_size` gives, if there is one.
        embedding_dim: Dimension D of the embedding.
    """

    mean_shift: MeanShiftRNN | None
    object_size: ObjectSize | None
    size_network: keras.Model | None

    def __init__(
        self,
        backbone: keras.Model,
        embed: SphericalEmbedding,
        mean_shift: MeanShiftRNN | None,
        *,
        num_classes: int,
        margin: float,
        neighborhood: float | None,
        output_stride: int | None,
        embed_background: bool,
        fusion_filters: int,
        percentiles: tuple[float, float] | None,
        ignore_label: int | None,
        object_size: ObjectSize | None = None,
        class_names: Sequence[str] | None = None,
        lateral_initializer: str,
        **kwargs: Any,
    ) -> None:
        num_classes = check_integer("num_classes", num_classes, 1, MAX_CLASSES)
        if class_names is not None:
            class_names = tuple(class_names)
            if len(class_names) != num_classes or not all(isinstance(n, str) for n in class_names):
                raise ValueError(
                    f"`class_names` must be None or {num_classes} texts, one for each class other "
                    f"than the background. Received: class_names={class_names!r}"
                )
        check_number("margin", margin, "[0, 1)")
        if neighborhood is not None:
            check_number("neighborhood", neighborhood)
        features, strides = pyramid(backbone)
        output_stride = output_stride or strides[0]
        check_choice("output_stride", output_stride, strides)

        self.largest_stride = strides[-1]
        pad = PadToMultiple(self.largest_stride, name="pad")
        fusion = FeatureFusion(
            fusion_filters, lateral_initializer=lateral_initializer, name="fusion"
        )

        def fused_and_coarse(x: Tensor) -> tuple[Tensor, Tensor]:
            maps = features(pad(x))
            maps = list(maps) if isinstance(maps, (list, tuple)) else [maps]
            # Fine enough for small objects, coarse enough to see large ones.
            coarse = maps[strides.index(_SIZE_STRIDE) if _SIZE_STRIDE in strides else -1]
            return fusion(maps[strides.index(output_stride) :]), coarse

        images = keras.Input((None, None, None if percentiles else 3), name="image")
        x = ImageNormalization(*percentiles, name="normalize")(images) if percentiles else images
        fused, coarse = fused_and_coarse(x)
        classify = _classify(num_classes, output_stride, dtype=embed.dtype_policy)
        logits, embedding = classify(fused), embed(fused)
        outputs = {"embedding": embedding}
        if mean_shift is not None:
            weights = None
            if not embed_background:
                weights = named("foreground", lambda x: 1.0 - ops.softmax(x)[..., 0], logits)
            loops = mean_shift(embedding, weights, return_sequences=True)
            for t in range(mean_shift.iterations):
                name = f"shift_{t + 1}"
                outputs[name] = named(name, partial(_loop, number=t), loops)
        crop = CropLike(dtype=precise_dtype(), name="crop")
        outputs["semantic"] = crop(logits, images)
        if object_size is not None:
            outputs["size"] = object_size(coarse)
        super().__init__(images, outputs, **kwargs)

        self.backbone = backbone
        self._normalization = ImageNormalization(*percentiles) if percentiles else None
        pixels = keras.Input((None, None, 3), name="normalized")
        fused, coarse = fused_and_coarse(pixels)
        parts = [embed(fused), classify(fused)]
        self.pixel_network = keras.Model(pixels, parts, name="pixel_network")
        # PyTorch finds modules only where no attribute hides them: there is no default.
        self.size_network = (
            keras.Model(pixels, object_size(coarse), name="size_network") if object_size else None
        )
        self.object_size = object_size
        self._size_stride = _SIZE_STRIDE if _SIZE_STRIDE in strides else strides[-1]
        self.mean_shift = mean_shift
        self.embedding_dim = embed.dim
        self.num_classes = num_classes
        self.class_names = class_names
        self.margin = margin
        self.neighborhood = neighborhood
        self.percentiles = percentiles
        self.output_stride = output_stride
        self.embed_background = embed_background
        self.ignore_label = ignore_label

    def class_name(self, label: int) -> str:
        """Name a class.

        Args:
            label: Its number, in 0 … `num_classes`; 0 is the background.

        Returns:
            Its name, or its number as text if the model was made without `class_names`.

        Raises:
            ValueError: If there is no such class.

        Example:
            >>> from keras_rpe.models import SemanticSegmenter
            >>> model = SemanticSegmenter(num_classes=2, class_names=["cat", "dog"])
            >>> model.class_name(2)
            'dog'
        """
        check_integer("label", label, 0, self.num_classes)
        if label == 0:
            return "background"
        return self.class_names[label - 1] if self.class_names else str(label)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give the embeddings before mean shift, and the class scores.

        Args:
            images: `(batch, H, W, C)`.

        Returns:
            Unit embeddings `(batch, h, w, D)`, and the scores of the classes other than the
            background, in [0, 1], `(batch, h · stride, w · stride, num_classes)`; they are 0 where
            that is beyond the image.
        """
        return self.embed_normalized(self.normalized(images))

    def normalized(self, images: Tensor, limits: Tensor | None = None) -> Tensor:
        """Images as the networks take them: three channels, in [0, 1]."""
        return self._normalization(images, limits) if self._normalization else images

    def embed_normalized(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `embed` does for images that `normalized` gave."""
        embedding, logits = self.pixel_network(images, training=False)
        size, cells = ops.shape(logits), ops.shape(embedding)
        bottom = cells[1] * self.output_stride - size[1]
        right = cells[2] * self.output_stride - size[2]
        if self.num_classes == 1:  # The softmax of two channels, many times as fast.
            scores = ops.sigmoid(logits[..., 1:] - logits[..., :1])
        else:
            scores = ops.softmax(logits, axis=-1)[..., 1:]
        return embedding, ops.pad(scores, [[0, 0], [0, bottom], [0, right], [0, 0]])

    def _auto_losses(self) -> tuple[dict[str, keras.losses.Loss], dict[str, float] | None]:
        losses = {
            "semantic": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=VOID
            ),
            "size": ObjectSizeLoss(),
            **{
                name: margin_loss(self.margin, self.neighborhood)
                for name in self.output
                if name not in ("semantic", "size")
            },
        }
        return {name: losses[name] for name in self.output}, None

    def _label_checks(self, loss: Any) -> list[LabelCheck]:
        capacity = CapacityCheck.of_loss(self.embedding_dim, loss)
        return [*([capacity] if capacity else []), ClassCheck(self.num_classes)]

    def _targets(self, y: Any, y_pred: dict[str, Tensor]) -> dict[str, Tensor]:
        """What each output is compared with.

        For `semantic` that is the classes `(batch, H, W)`, for the embeddings the instances, made
        as large as the embedding map times its stride by void pixels.
        """
        instances, classes = self._instances_and_classes(y, y_pred["semantic"])
        targets = {"semantic": classes}
        if self.object_size is not None:
            targets["size"] = self._sizes(instances, y_pred["size"])
        size, cells = ops.shape(instances), ops.shape(y_pred["embedding"])
        bottom, right = (cells[axis] * self.output_stride - size[axis] for axis in (1, 2))
        padding = [[0, 0], [0, bottom], [0, right]]
        padded = ops.pad(instances, padding, constant_values=VOID)
        return {name: targets.get(name, padded) for name in self.output}

    def _sizes(self, instances: Tensor, cells: Tensor) -> Tensor:
        """What `ObjectSizeLoss` compares the diameters in cells with."""
        found = log_diameters(instances)
        h, w = ops.shape(cells)[1], ops.shape(cells)[2]
        stride = self._size_stride
        bottom, right = (n * stride - ops.shape(found)[axis] for n, axis in ((h, 1), (w, 2)))
        found = ops.pad(found, [[0, 0], [0, bottom], [0, right]])
        found = ops.reshape(found, (-1, h, stride, w, stride))
        # Any object in a cell, and if there is none, one whose size is not known.
        largest, least = ops.max(found, axis=(2, 4)), ops.min(found, axis=(2, 4))
        return ops.where(largest > 0, largest, least)

    def _learn_from(self, targets: dict[str, Tensor]) -> None:
        if self.object_size is not None:
            self.object_size.update(targets["size"])

    def _instances_and_classes(self, y: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps `(batch, H, W)` of the labels, void pixels being `VOID`."""
        needed = {"instances"} if self.num_classes == 1 else {"instances", "classes"}
        if not isinstance(y, dict) and self.num_classes == 1:
            y = {"instances": y}
        if not isinstance(y, dict) or not needed <= {*y}:
            received = f"a dictionary of {sorted(y)}" if isinstance(y, dict) else type(y).__name__
            raise ValueError(
                f"With num_classes={self.num_classes}, the labels must be a dictionary of "
                f"'instances' and 'classes'. Received: {received}"
            )
        instances = ops.cast(label_map(y["instances"], images), "int32")
        if self.num_classes == 1:  # Whatever classes the data have, they are one.
            classes = ops.cast(instances > 0, "int32")
        else:
            classes = self._class_map(y["classes"], images)
        if self.ignore_label is not None:
            void = instances == self.ignore_label
            instances, classes = (ops.where(void, VOID, x) for x in (instances, classes))
        if not self.embed_background:
            instances = ops.where(instances == 0, VOID, instances)
        return instances, classes

    def _class_map(self, classes: Any, images: Tensor) -> Tensor:
        """Class maps with `VOID` in place of `ignore_label`, unless that is a class."""
        classes = ops.cast(label_map(classes, images), "int32")
        if self.ignore_label is None or 0 <= self.ignore_label <= self.num_classes:
            return classes
        return ops.where(classes == self.ignore_label, VOID, classes)


def _classify(num_classes: int, stride: int, dtype: Any) -> Callable[[Tensor], Tensor]:
    """The head of class scores, at the size of the image."""
    shared = {"dtype": dtype, "name": "classes"}
    if num_classes == 1 and stride > 1:  # Edges finer than the cells.
        return SubpixelConv2DTranspose(2, stride, **shared)
    # With many classes such edges would cost as much as the backbone.
    classify = keras.layers.Conv2DTranspose(num_classes + 1, 1, **shared)
    enlarge = BilinearUpsampling(stride, dtype=dtype, name="enlarge")
    return lambda x: enlarge(classify(x))


def _loop(loops: Tensor, number: int) -> Tensor:
    return loops[number]


def margin_loss(margin: float, neighborhood: float | None) -> CosineMarginLoss:
    """The margin loss of `compile(loss="auto")`, with a random sample of its own."""
    return CosineMarginLoss(
        margin=margin, num_samples=_SAMPLES, ignore_label=VOID, neighborhood=neighborhood
    )
