"""Pictures: instances on the image, embeddings as colours and points, curves of the figures."""

from keras_rpe.visualization.embedding_colors import embedding_colors
from keras_rpe.visualization.embedding_loops import embedding_loops
from keras_rpe.visualization.loss_per_loop import loss_per_loop
from keras_rpe.visualization.overlay_instances import overlay_instances
from keras_rpe.visualization.precision_recall_picture import precision_recall_picture
from keras_rpe.visualization.sphere_scatter import sphere_scatter
from keras_rpe.visualization.trajectory_picture import trajectory_picture

__all__ = [
    "embedding_colors",
    "embedding_loops",
    "loss_per_loop",
    "overlay_instances",
    "precision_recall_picture",
    "sphere_scatter",
    "trajectory_picture",
]
