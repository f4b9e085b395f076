"""The bundled preset, exported once to every format, and real images of different sizes."""

import os
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from filelock import FileLock

from keras_rpe.data import read_image
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe_cli.demo import demo_image


@pytest.fixture(scope="session")
def nuclei() -> InstanceSegmenter:
    return InstanceSegmenter.from_preset("nuclei")


@pytest.fixture(scope="session")
def small_model() -> InstanceSegmenter:
    """A model with random weights."""
    return InstanceSegmenter("unet_small", embedding_dim=6, iterations=1)


@pytest.fixture(scope="session")
def sized_model() -> InstanceSegmenter:
    """A small one of random weights, which resizes images as if it were trained at 16 pixels."""
    keras.utils.set_random_seed(0)
    model = InstanceSegmenter(unet_encoder((8, 16), blocks=1), embedding_dim=6, iterations=1)
    model.object_size.log_diameter.assign(4.0)
    return model


@pytest.fixture(scope="session")
def export(nuclei: InstanceSegmenter, tmp_path_factory: pytest.TempPathFactory):
    """Export the preset into a folder that all workers share, unless one of them has done so."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    folder.mkdir(exist_ok=True)

    def export_once(path: str, format: str) -> Path:
        with FileLock(folder / f"{format}.lock"):
            if not (folder / path).exists():
                nuclei.export(folder / path, format=format)
        return folder / path

    return export_once


@pytest.fixture(scope="session")
def saved_model(export) -> Path:
    """Folder of version 1; the folder above it is `nuclei`."""
    return export("nuclei/1", "tf_saved_model")


@pytest.fixture(scope="session")
def litert() -> Path:
    """The file that comes with the preset, of float16."""
    return Path(__file__).parents[2] / "saved_models" / "nuclei.tflite"


@pytest.fixture(scope="session")
def onnx(export) -> Path:
    return export("nuclei.onnx", "onnx")


@pytest.fixture(scope="session")
def signatures(saved_model: Path) -> SimpleNamespace:
    """The functions of the SavedModel, which do not keep it alive."""
    loaded = tf.saved_model.load(str(saved_model))
    return SimpleNamespace(loaded=loaded, **loaded.signatures)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real image that is there on every machine, uint8 `(120, 150, 3)`: stained nuclei."""
    return np.repeat(demo_image()[100:220, 300:450, None], 3, axis=-1)


@pytest.fixture(scope="session")
def small(photo: np.ndarray) -> np.ndarray:
    """A part of it, uint8 `(64, 72, 3)`."""
    return np.ascontiguousarray(photo[:64, :72])


@pytest.fixture(scope="session")
def real_images(data_root: Path) -> list[np.ndarray]:
    """Eight microscope images of different sizes, uint8 `(H, W, 3)`."""
    images: list[np.ndarray] = []
    shapes: list[tuple[int, ...]] = []
    for file in sorted((data_root / "dsb2018" / "train" / "images").glob("*.png")):
        image = read_image(file)
        image = image[..., :3] if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
        most = 4 if image.size < 400 * 400 * 3 else int(image.size < 700 * 700 * 3)
        if len(images) < 8 and shapes.count(image.shape) < most:
            shapes.append(image.shape)
            images.append(np.ascontiguousarray(image))
    # Sizes that are not a multiple of the stride of the network.
    for k, side in enumerate((97, 131, 203)):
        images[k] = np.ascontiguousarray(images[k][: side + 5, :side])
    return images


@pytest.fixture(scope="session")
def real_labels(nuclei: InstanceSegmenter, real_images: list[np.ndarray]) -> list[np.ndarray]:
    """What the Keras model finds in them."""
    return [nuclei.predict_instances(image).labels for image in real_images]
