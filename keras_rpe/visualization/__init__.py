"""Pictures: instances on the image, embeddings as colors and points, curves of the figures."""

from keras_rpe.visualization.curves import loss_per_loop, precision_recall_picture
from keras_rpe.visualization.embeddings import embedding_colors, embedding_loops
from keras_rpe.visualization.overlay import overlay_instances
from keras_rpe.visualization.sphere import sphere_scatter, trajectory_picture

__all__ = [
    "embedding_colors",
    "embedding_loops",
    "loss_per_loop",
    "overlay_instances",
    "precision_recall_picture",
    "sphere_scatter",
    "trajectory_picture",
]


def __dir__() -> list[str]:
    return __all__
