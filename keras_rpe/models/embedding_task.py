"""What the tasks share that are trained through the loops of the grouping."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import keras

from keras_rpe.layers import InstanceDecoder, MeanShiftRNN
from keras_rpe.models.capacity_check import CapacityCheck
from keras_rpe.models.segmenter_losses import VOID, default_losses, targets
from keras_rpe.models.task import Task

Tensor = Any


class EmbeddingTask(Task):
    """Base of the task models with outputs `embedding`, `shift_1` … `shift_T` and `semantic`.

    Attributes:
        backbone: The network from images to features.
        mean_shift: The loops, each with a loss of its own.
        decoder: What reads the instances off.
        embedding_dim: Dimension D of the embedding.
        margin: Margin α of the loss.
        neighborhood: Distance, in cells, up to which it pushes instances apart; `None`: any.
        num_classes: Classes other than the background.
        output_stride: Stride of the embedding map.
        embed_background: Whether the background is an instance of the pair loss.
        ignore_label: Id of void pixels in the instance maps.
    """

    served_maps: ClassVar[dict[str, str]] = {"labels": "int32"}
    served_tables: ClassVar[dict[str, str]] = {
        "scores": "float32",
        "boxes": "int32",
        "classes": "int32",
        "num_instances": "int32",
    }
    backbone: keras.Model
    mean_shift: MeanShiftRNN
    decoder: InstanceDecoder
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

    def compile(
        self, optimizer: Any = "adam", loss: Any = "auto", loss_weights: Any = None, **kwargs: Any
    ) -> None:
        """Configure training.

        Training then warns, once, if images have more instances than the margin loss can push
        apart in so many dimensions (see `keras_rpe.models.capacity_check.CapacityCheck`).

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
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **kwargs)

    def make_train_function(self, force: bool = False) -> Any:
        """Make what `fit` calls at every step."""
        made = self.train_function
        super().make_train_function(force)
        if self._capacity_check is not None and self.train_function is not made:
            self.train_function = self._capacity_check.after(self.train_function)
        return self.train_function

    @property
    def output_names_of_losses(self) -> list[str]:
        """Names of the outputs, which are those of their losses."""
        return ["embedding", *self._shift_names(), "semantic"]

    def _shift_names(self) -> list[str]:
        return [f"shift_{t + 1}" for t in range(self.mean_shift.iterations)]

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
            y: Instance maps, integers `(batch, H, W)`; with several classes, a dictionary of
                `instances` and `classes`, both `(batch, H, W)`, 0 = background.
            y_pred: Outputs of the model.
            sample_weight: Weight of each image, `(batch,)`.
            training: Whether in training.
        """
        y = targets(
            y,
            y_pred,
            self.output_names_of_losses,
            self.output_stride,
            self.num_classes,
            self.ignore_label,
            self.embed_background,
        )
        if training and self._capacity_check is not None:
            self._capacity_check.observe(y["embedding"], y_pred["embedding"], VOID)
        if sample_weight is not None and not isinstance(sample_weight, dict):
            sample_weight = dict.fromkeys(y, sample_weight)
        return super().compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
        )

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the model can be made again."""
        config = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self._arguments.items()
        }
        if not isinstance(config["backbone"], str):
            config["backbone"] = keras.saving.serialize_keras_object(self.backbone)
        config["decoder"] = keras.saving.serialize_keras_object(self.decoder)
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
