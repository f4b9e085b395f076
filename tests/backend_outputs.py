"""Run as a script: what the parts of the package give on this backend, or a preset on images.

python backend_outputs.py OUT.npz [FOLDER PRESET [embeddings]]
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_rpe import layers, losses
from keras_rpe.data import read_image
from keras_rpe.metrics import InstanceAveragePrecision, InstancePanopticQuality
from keras_rpe.models import InstanceSegmenter, ObjectProposer, SemanticSegmenter, Task
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.ops import mean_shift
from keras_rpe.results import rgb_array


def outputs() -> dict[str, np.ndarray]:
    """Named results for fixed inputs and weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 12, 10, 6)).astype("float32")
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    labels = rng.integers(0, 4, (2, 24, 20)).astype("int32")
    smooth = np.kron(labels[:, ::6, ::5], np.ones((1, 6, 5), "int32"))
    scores = (smooth > 0) * 0.9
    weights = rng.random((2, 12, 10)).astype("float32")

    found: dict[str, object] = {}
    embed = layers.SphericalEmbedding(6, coordinates=True, position_periods=(4.0, 9.0))
    embed.build(x.shape)
    embed.set_weights([np.linspace(-1, 1, w.size).reshape(w.shape) for w in embed.get_weights()])
    found["embedding"] = embed(x)
    for name, kwargs in {
        "shift": {},
        "sequence": {"return_sequences": True, "step_size": 0.7},
        "windows": {"window_size": 5, "return_sequences": True},
    }.items():
        layer = layers.MeanShiftRNN(3, 0.4, block_size=16, **kwargs)
        found[name] = layer(x, weights=weights)
    modes = ops.one_hot(smooth[:, 1::2, 1::2], 6)
    for name, value in layers.InstanceDecoder(min_area=4, max_instances=30)(modes, scores).items():
        found[f"decoder_{name}"] = value
    found["normalized"] = layers.ImageNormalization()(labels[..., None])
    for power in (1, 2):
        loss = losses.CosineMarginLoss(0.4, power=power, num_samples=None, ignore_label=3)
        found[f"loss_{power}"] = loss(labels, x)
    # The draw differs between backends, but a draw of all pixels does not.
    found["loss_drawn"] = losses.CosineMarginLoss(0.4, num_samples=120)(labels, x)
    for metric in (InstanceAveragePrecision(0.5), InstancePanopticQuality(0.5)):
        metric.update_state(smooth, np.roll(smooth, 1, axis=2))
        found[metric.name] = metric.result()
    points, alike = x.reshape(2, 120, 6), weights.reshape(2, 120, 1)
    some = np.where(alike > 0.3, alike, 0.0)
    found["gradient"] = gradient(points, None, block_size=16)
    found["gradient_rows"] = gradient(points, some, block_size=50, implementation="rows")
    # TensorFlow has no fused attention: its tiles say what the result must be.
    kind = "tiles" if keras.backend.backend() == "tensorflow" else "attention"
    found["gradient_attention"] = gradient(points, some, implementation=kind)

    model = InstanceSegmenter(unet_encoder((4, 8), 1), embedding_dim=4, iterations=2)
    model.set_weights([0.3 * rng.normal(size=w.shape) ** 2 for w in model.get_weights()])
    result = model.predict_instances(rng.random((21, 26)))
    found["instances"] = result.labels

    proposer = ObjectProposer(
        unet_encoder((4, 8), 1), embedding_dim=4, max_instances=16, min_area=4
    )
    proposer.set_weights([0.3 * rng.normal(size=w.shape) ** 2 for w in proposer.get_weights()])
    proposals = proposer.predict_proposals(rng.random((21, 26)))
    found |= {"proposals": proposals.masks, "proposal_scores": proposals.scores}
    semantic = SemanticSegmenter(unet_encoder((4, 8), 1), num_classes=3, embedding_dim=4)
    semantic.set_weights([0.3 * rng.normal(size=w.shape) ** 2 for w in semantic.get_weights()])
    found["classes"] = semantic.predict_classes(rng.random((21, 26))).classes
    return {name: ops.convert_to_numpy(value) for name, value in found.items()}


def gradient(x: np.ndarray, weights: np.ndarray | None, **how: object) -> np.ndarray:
    """Gradient of a sum over all loops of a mean shift."""
    target = ops.convert_to_tensor(np.random.default_rng(1).normal(size=(3, *x.shape)), "float32")

    def loss(x):
        return ops.sum(mean_shift(x, 0.4, 3, 1.0, weights, True, **how) * target)

    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(loss))(x))
    if keras.backend.backend() == "torch":
        import torch

        points = torch.tensor(x, requires_grad=True)
        loss(points).backward()
        return points.grad.numpy()
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x)
    return np.asarray(tape.gradient(value, x))


def labels_of_a_preset(folder: str, preset: str, what: str = "labels") -> dict[str, np.ndarray]:
    """What a preset finds in the first ten images of a folder, or its embeddings."""
    model = Task.from_preset(preset)
    found = {}
    for path in sorted(Path(folder, "images").iterdir())[:10]:
        if what == "embeddings":
            embedding, _ = model.embed(rgb_array(read_image(path))[None])
            found[path.name] = ops.convert_to_numpy(embedding)
        elif isinstance(model, ObjectProposer):
            found[path.name] = model.predict_proposals(read_image(path), max_proposals=10).masks
        else:
            found[path.name] = model.predict_instances(read_image(path)).labels
    return found


if __name__ == "__main__":
    what = labels_of_a_preset(*sys.argv[2:]) if len(sys.argv) > 2 else outputs()
    np.savez(sys.argv[1], **what)
