"""Callbacks for training instance segmentation."""

from keras_rpe.callbacks.embedding_board import EmbeddingBoard
from keras_rpe.callbacks.instance_evaluation import InstanceEvaluation
from keras_rpe.callbacks.time_budget import TimeBudget
from keras_rpe.callbacks.training_state import TrainingState

__all__ = ["EmbeddingBoard", "InstanceEvaluation", "TimeBudget", "TrainingState"]


def __dir__() -> list[str]:
    return __all__
