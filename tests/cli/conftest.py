"""What the tests of the commands share: tiny presets, a small labelled folder, a runner."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import Outcome

from keras_rpe.data import write_image, write_labels
from keras_rpe.models import BoundaryDetector, InstanceSegmenter, ObjectProposer
from keras_rpe.models.backbones import unet_encoder
from keras_rpe_cli import main
from keras_rpe_cli.options import load_task

Run = Callable[..., Outcome]


# A model compiles for seconds: commands that only predict with one get the same again.
_load_once = cache(load_task)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process."""
    for command in ("segment", "boundaries", "classes", "evaluate", "propose"):
        monkeypatch.setattr(f"keras_rpe_cli.{command}.load_task", _load_once)

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def tiny_model() -> InstanceSegmenter:
    keras.utils.set_random_seed(1)
    model = InstanceSegmenter(
        unet_encoder((8, 16), blocks=1),
        embedding_dim=4,
        iterations=1,
        fusion_filters=8,
        # Half the time of every graph.
        find_diameter=False,
        class_names=["cell"],
        # Untrained embeddings are scattered, and rounding would send some to other seeds.
        inference_seeds=None,
    )
    # An untrained model that calls most pixels foreground, so that there are instances.
    model.get_layer("classes").bias.assign([0.0, 3.0])
    return model


@pytest.fixture(scope="session")
def tiny_preset(tiny_model: InstanceSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    tiny_model.save_to_preset(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_detector() -> BoundaryDetector:
    keras.utils.set_random_seed(1)
    return BoundaryDetector(unet_encoder((8, 16), blocks=1), fusion_filters=8)


@pytest.fixture(scope="session")
def boundary_preset(
    tiny_detector: BoundaryDetector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("boundary_presets") / "lines"
    tiny_detector.save_to_preset(folder, {"task": "boundary detection"})
    return folder


@pytest.fixture(scope="session")
def tiny_proposer() -> ObjectProposer:
    keras.utils.set_random_seed(1)
    model = ObjectProposer(
        unet_encoder((8, 16), blocks=1), embedding_dim=4, iterations=1, fusion_filters=8
    )
    model.get_layer("classes").bias.assign([0.0, 3.0])
    return model


@pytest.fixture(scope="session")
def proposal_preset(
    tiny_proposer: ObjectProposer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("proposal_presets") / "things"
    tiny_proposer.save_to_preset(folder)
    return folder


@pytest.fixture(scope="session")
def exported(tiny_preset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of LiteRT that `export` wrote, and what it printed."""
    path = tmp_path_factory.mktemp("exported") / "tiny.tflite"
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["export", str(tiny_preset), str(path)]) == 0
    return path, printed.getvalue()


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Four images of two bright squares each with their labels."""
    folder = tmp_path / "labelled"
    for part in ("images", "instances"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "abcd":
        labels = np.zeros((32, 40), "int32")
        labels[4:14, 5:15] = 1
        labels[16:28, 20:34] = 300
        image = rng.integers(0, 60, (32, 40, 3)) + 150 * (labels > 0)[..., None]
        write_image(folder / "images" / f"{name}.png", image.astype("uint8"))
        write_labels(folder / "instances" / f"{name}.png", labels)
    return folder
