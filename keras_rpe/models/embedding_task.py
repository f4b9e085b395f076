"""What the tasks share that are trained through the loops of the grouping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self

import keras
from keras import ops

from keras_rpe.layers import MeanShiftRNN
from keras_rpe.losses import CosineMarginLoss
from keras_rpe.models.checks import CapacityCheck, ClassCheck
from keras_rpe.models.network import EmbeddingGraph
from keras_rpe.models.task import Task

Tensor = Any

# Pairs are the square of it, and half as many pixels as the loss takes by default learn as well.
_SAMPLES = 512
VOID = -1  # Id of pixels that no loss counts, whatever id the user's maps have for them.


def default_losses(
    outputs: Iterable[str], margin: float, neighborhood: float | None
) -> dict[str, keras.losses.Loss]:
    """The losses of `compile(loss="auto")`.

    Args:
        outputs: Names of the outputs of the model.
        margin: Margin of the pair loss.
        neighborhood: Distance up to which it pushes instances apart.

    Returns:
        Cross-entropy for `semantic` and a margin loss, with a sample of its own, for the others.
    """
    return {
        name: keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID)
        if name == "semantic"
        else CosineMarginLoss(
            margin=margin, num_samples=_SAMPLES, ignore_label=VOID, neighborhood=neighborhood
        )
        for name in outputs
    }


def targets(
    y: Any,
    y_pred: dict[str, Tensor],
    outputs: Iterable[str],
    stride: int,
    num_classes: int,
    ignore_label: int | None,
    embed_background: bool,
) -> dict[str, Tensor]:
    """What each output is compared with.

    Args:
        y: Integer instance maps `(batch, H, W)` or `(batch, H, W, 1)`, or a dictionary of
            `instances` and `classes`; with one class, the latter do not matter.
        y_pred: Outputs of the model, for the size of the embedding map.
        outputs: Names of the outputs.
        stride: Stride of the embedding map.
        num_classes: Classes other than the background.
        ignore_label: Id of void pixels in instance maps, and in class maps if it is no class.
        embed_background: Whether the background is an instance for the embeddings, or void.

    Returns:
        A map for each output: for `semantic` the classes `(batch, H, W)`, for the embeddings the
        instances, made as large as the embedding map times its stride by void pixels.

    Raises:
        ValueError: If there are several classes but no class map.
    """
    needed = {"instances"} if num_classes == 1 else {"instances", "classes"}
    if isinstance(y, dict) and needed <= set(y):
        instances, classes = _flat(y["instances"]), y.get("classes")
    elif isinstance(y, dict) or num_classes > 1:
        received = f"a dictionary of {sorted(y)}" if isinstance(y, dict) else type(y).__name__
        raise ValueError(
            f"With num_classes={num_classes}, the labels must be a dictionary of 'instances' and "
            f"'classes'. Received: {received}"
        )
    else:
        instances = _flat(y)
    # Whatever classes the data have, with one class they are one.
    classes = ops.cast(instances > 0, "int32") if num_classes == 1 else _flat(classes)
    if ignore_label is not None:
        void = instances == ignore_label
        instances = ops.where(void, VOID, instances)
        classes = ops.where(void, VOID, _without_void(classes, num_classes, ignore_label))
    if not embed_background:
        instances = ops.where(instances == 0, VOID, instances)
    padded = _padded(instances, y_pred["embedding"], stride)
    return {name: classes if name == "semantic" else padded for name in outputs}


def class_targets(
    y: Any,
    y_pred: dict[str, Tensor],
    outputs: Iterable[str],
    stride: int,
    num_classes: int,
    ignore_label: int | None,
) -> dict[str, Tensor]:
    """What each output is compared with where the groups of the embedding are the classes.

    Args:
        y: Integer class maps `(batch, H, W)` or `(batch, H, W, 1)`, or a dictionary with them as
            `classes`.
        y_pred: Outputs of the model, for the size of the embedding map.
        outputs: Names of the outputs.
        stride: Stride of the embedding map.
        num_classes: Classes other than the background.
        ignore_label: Id of void pixels, which is no class.

    Returns:
        As `targets`.

    Raises:
        ValueError: If there is no class map.
    """
    if isinstance(y, dict):
        if "classes" not in y:
            raise ValueError(
                "The labels must be class maps, or a dictionary with them as 'classes'. "
                f"Received: a dictionary of {sorted(y)}"
            )
        y = y["classes"]
    classes = _without_void(_flat(y), num_classes, ignore_label)
    padded = _padded(classes, y_pred["embedding"], stride)
    return {name: classes if name == "semantic" else padded for name in outputs}


def _without_void(classes: Tensor, num_classes: int, ignore_label: int | None) -> Tensor:
    if ignore_label is None or 0 <= ignore_label <= num_classes:
        return classes
    return ops.where(classes == ignore_label, VOID, classes)


def _padded(labels: Tensor, embedding: Tensor, stride: int) -> Tensor:
    """Labels as large as the embedding map times its stride, by void pixels."""
    size, cells = ops.shape(labels), ops.shape(embedding)
    bottom, right = cells[1] * stride - size[1], cells[2] * stride - size[2]
    return ops.pad(labels, [[0, 0], [0, bottom], [0, right]], constant_values=VOID)


def _flat(labels: Any) -> Tensor:
    labels = ops.cast(labels, "int32")
    return ops.squeeze(labels, -1) if len(labels.shape) == 4 else labels


class EmbeddingTask(Task):
    """Base of the task models with outputs `embedding`, `shift_1` … `shift_T` and `semantic`.

    Args:
        graph: The graph of the model.
        arguments: Arguments of the constructor, for `get_config`.
        name: Name of the model.
        trainable: Whether training changes the weights.

    Attributes:
        backbone: The network from images to features.
        pixel_network: The network from images to embeddings and logits.
        mean_shift: The loops, each with a loss of its own, or `None`.
        embedding_dim: Dimension D of the embedding.
        margin: Margin α of the loss.
        neighborhood: Distance, in cells, up to which it pushes instances apart; `None`: any.
        num_classes: Classes other than the background.
        output_stride: Stride of the embedding map.
        embed_background: Whether the background is an instance of the pair loss.
        ignore_label: Id of void pixels in the maps of the labels.
    """

    served_maps: ClassVar[dict[str, str]] = {"labels": "int32"}
    served_tables: ClassVar[dict[str, str]] = {
        "scores": "float32",
        "boxes": "int32",
        "classes": "int32",
        "num_instances": "int32",
    }
    backbone: keras.Model
    pixel_network: keras.Model
    mean_shift: MeanShiftRNN | None
    embedding_dim: int
    margin: float
    neighborhood: float | None
    num_classes: int
    output_stride: int
    embed_background: bool
    ignore_label: int | None
    _arguments: dict[str, Any]
    train_function: Any
    _capacity_check: CapacityCheck | None = None
    _class_check: ClassCheck | None = None

    def __init__(
        self, graph: EmbeddingGraph, arguments: dict[str, Any], name: str, trainable: bool
    ) -> None:
        super().__init__(graph.images, graph.outputs, name=name, trainable=trainable)
        self.backbone = graph.backbone
        self.pixel_network = graph.pixel_network
        self.mean_shift = graph.mean_shift
        self.output_stride = graph.output_stride
        self._arguments = {**arguments, "output_stride": graph.output_stride}

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give the embeddings before mean shift, and the class scores.

        Args:
            images: `(batch, H, W, C)`.

        Returns:
            Unit embeddings `(batch, h, w, D)`, and the scores of the classes other than the
            background, in [0, 1], `(batch, h · stride, w · stride, num_classes)`; they are 0 where
            that is beyond the image.
        """
        embedding, logits = self.pixel_network(images, training=False)
        size, cells = ops.shape(logits), ops.shape(embedding)
        bottom = cells[1] * self.output_stride - size[1]
        right = cells[2] * self.output_stride - size[2]
        scores = ops.softmax(logits, axis=-1)[..., 1:]
        return embedding, ops.pad(scores, [[0, 0], [0, bottom], [0, right], [0, 0]])

    def compile(
        self, optimizer: Any = "adam", loss: Any = "auto", loss_weights: Any = None, **kwargs: Any
    ) -> None:
        """Configure training.

        Training then warns, once, if images have more instances than the margin loss can push
        apart in so many dimensions (see `keras_rpe.models.checks.CapacityCheck`), and
        raises if class maps hold a class beyond `num_classes`.

        Args:
            optimizer: Name or optimizer.
            loss: "auto" for the margin loss on `embedding` and every `shift_t`, each of weight 1,
                and cross-entropy on `semantic`; or a dictionary with a loss for each output.
            loss_weights: Dictionary of a factor for each output.
            **kwargs: Of `keras.Model.compile`.
        """
        if isinstance(loss, str) and loss == "auto":
            loss = default_losses(self.output_names_of_losses, self.margin, self.neighborhood)
        self._capacity_check = CapacityCheck.of_loss(self.embedding_dim, loss)
        self._class_check = ClassCheck(self.num_classes, VOID)
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **kwargs)

    def make_train_function(self, force: bool = False) -> Any:
        """Make what `fit` calls at every step."""
        made = self.train_function
        super().make_train_function(force)
        if self.train_function is not made:
            for check in (self._capacity_check, self._class_check):
                if check is not None:
                    self.train_function = check.after(self.train_function)
        return self.train_function

    @property
    def output_names_of_losses(self) -> list[str]:
        """Names of the outputs, which are those of their losses."""
        return ["embedding", *self._shift_names(), "semantic"]

    def _shift_names(self) -> list[str]:
        loops = 0 if self.mean_shift is None else self.mean_shift.iterations
        return [f"shift_{t + 1}" for t in range(loops)]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the sum of the losses of all outputs for instance maps `y`.

        Args:
            x: Images.
            y: Instance maps, integers `(batch, H, W)`; or, with several classes always, a
                dictionary of `instances` and `classes`, both `(batch, H, W)`, 0 = background.
            y_pred: Outputs of the model.
            sample_weight: Weight of each image, `(batch,)`.
            training: Whether in training.
        """
        y = self._targets(y, y_pred)
        if training and self._capacity_check is not None:
            self._capacity_check.observe(y["embedding"], y_pred["embedding"], VOID)
        if training and self._class_check is not None:
            y["semantic"] = self._class_check.observe(y["semantic"])
        if sample_weight is not None and not isinstance(sample_weight, dict):
            sample_weight = dict.fromkeys(y, sample_weight)
        return super().compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
        )

    def _targets(self, y: Any, y_pred: dict[str, Tensor]) -> dict[str, Tensor]:
        """What each output is compared with."""
        return targets(
            y,
            y_pred,
            self.output_names_of_losses,
            self.output_stride,
            self.num_classes,
            self.ignore_label,
            self.embed_background,
        )

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the model can be made again."""
        config = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self._arguments.items()
        }
        if not isinstance(config["backbone"], str):
            config["backbone"] = keras.saving.serialize_keras_object(self.backbone)
        return {**config, "name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Make a model from its configuration, with random weights."""
        config = dict(config)
        for part in ("backbone", "decoder"):
            if isinstance(config.get(part), dict):
                config[part] = keras.saving.deserialize_keras_object(
                    config[part], custom_objects=custom_objects
                )
        return cls(**config)
