"""The bundled preset, exported once to every format, and real images of different sizes."""

import os
from pathlib import Path

import numpy as np
import pytest
from export.serving_processes import Server, prediction_stub, shared
from filelock import FileLock

from keras_rpe.data import read_image
from keras_rpe.models import InstanceSegmenter
from keras_rpe_cli.demo import demo_image


@pytest.fixture(scope="session")
def nuclei() -> InstanceSegmenter:
    return InstanceSegmenter.from_preset("nuclei")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the files of `saved_model`, `litert` and `onnx`, written once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def saved_model(nuclei: InstanceSegmenter, exported: Path) -> Path:
    """Folder of version 1; the folder above it is `nuclei`."""
    with FileLock(exported / "saved_model.lock"):
        version = exported / "nuclei" / "1"
        return version if version.is_dir() else nuclei.export(version.parent)


@pytest.fixture(scope="session")
def litert(nuclei: InstanceSegmenter, exported: Path) -> Path:
    with FileLock(exported / "litert.lock"):
        file = exported / "nuclei.tflite"
        return file if file.is_file() else nuclei.export(file, format="litert")


@pytest.fixture(scope="session")
def onnx(nuclei: InstanceSegmenter, exported: Path) -> Path:
    with FileLock(exported / "onnx.lock"):
        file = exported / "nuclei.onnx"
        return file if file.is_file() else nuclei.export(file, format="onnx")


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real image that is there on every machine, uint8 `(120, 150, 3)`: stained nuclei."""
    return np.repeat(demo_image()[100:220, 300:450, None], 3, axis=-1)


@pytest.fixture(scope="session")
def real_images(data_root: Path) -> list[np.ndarray]:
    """Twenty microscope images of different sizes, uint8 `(H, W, 3)`."""
    images: list[np.ndarray] = []
    counts: dict[tuple[int, ...], int] = {}
    for file in sorted((data_root / "dsb2018" / "train" / "images").glob("*.png")):
        image = read_image(file)
        image = image[..., :3] if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
        # A few of each size, of the large ones one; those above would make the suite wait.
        most = 6 if image.size < 400 * 400 * 3 else int(image.size < 700 * 700 * 3)
        if len(images) < 20 and counts.get(image.shape, 0) < most:
            counts[image.shape] = counts.get(image.shape, 0) + 1
            images.append(np.ascontiguousarray(image))
    # Sizes that are no multiple of the network's stride.
    for k, side in enumerate((97, 131, 203, 254)):
        images[k] = np.ascontiguousarray(images[k][: side + 5, :side])
    return images


@pytest.fixture(scope="session")
def real_labels(nuclei: InstanceSegmenter, real_images: list[np.ndarray]) -> list[np.ndarray]:
    """What the Keras model finds in them."""
    return [nuclei.predict_instances(image).labels for image in real_images]


@pytest.fixture(scope="module")
def rest(pytestconfig, saved_model) -> Server:
    return shared(pytestconfig, "kserve_server.py", saved_model)


@pytest.fixture(scope="module")
def grpc_server(pytestconfig, saved_model) -> Server:
    return shared(pytestconfig, "grpc_server.py", saved_model)


@pytest.fixture(scope="module")
def stub(grpc_server):
    with prediction_stub(grpc_server) as stub:
        yield stub
