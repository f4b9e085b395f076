"""The panels in a window that is not shown: `xvfb-run pytest -m slow`, with the extra `napari`."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.draw import disk

pytest.importorskip("napari", reason='pip install -e ".[dev,napari]" pyqt6 pytest-qt')
if sys.platform == "linux" and "DISPLAY" not in os.environ:
    pytest.skip("no display: start pytest by xvfb-run", allow_module_level=True)

from npe2 import PluginManifest
from tifffile import imread

pytestmark = pytest.mark.slow
SECONDS = 300


@pytest.fixture
def image() -> np.ndarray:
    """Discs on a grid, which touch none."""
    image = np.random.default_rng(0).normal(20, 4, (96, 160))
    for row in range(16, 96, 32):
        for column in range(16, 160, 32):
            image[disk((row, column), 10)] += 150
    return np.clip(image, 0, 255).astype("uint8")


@pytest.fixture
def press(qtbot):
    """Press the button of a panel, and wait for what it starts; gives what the panel says."""

    def press(panel, cancel: bool = False) -> str:
        panel.start.changed.emit(True)
        if cancel:
            qtbot.waitUntil(lambda: panel.cancel.enabled, timeout=1000 * SECONDS)
            qtbot.wait(1000)
            panel.cancel.changed.emit(True)
        qtbot.waitUntil(lambda: panel.start.enabled, timeout=1000 * SECONDS)
        return panel.status.value

    return press


@pytest.fixture
def viewer(make_napari_viewer):
    """A window without layers."""
    return make_napari_viewer()


@pytest.fixture
def opened(viewer, npe2pm):
    """Open a panel, as the menu does."""
    npe2pm.register(PluginManifest.from_distribution("keras-rpe"))

    def opened(name: str):
        return viewer.window.add_plugin_dock_widget("keras-rpe", name)[1]

    return opened


def test_the_plugin_is_found() -> None:
    manifest = PluginManifest.from_distribution("keras-rpe")
    manifest.validate_imports()
    assert {one.display_name for one in manifest.contributions.widgets} == {"Segment", "Fine-tune"}


PREDICT = """
import sys
import numpy as np
from keras_rpe.models import InstanceSegmenter

found = InstanceSegmenter.from_preset("nuclei").predict_instances(np.load(sys.argv[1]))
np.savez(sys.argv[2], labels=found.labels, diameter=found.diameter)
"""


def predicted(image: np.ndarray, folder: Path) -> tuple[np.ndarray, float]:
    """What the model finds, and the diameter."""
    np.save(folder / "image.npy", image)
    files = folder / "image.npy", folder / "found.npz"
    subprocess.run([sys.executable, "-c", PREDICT, *map(str, files)], check=True)
    found = np.load(files[1])
    return found["labels"], float(found["diameter"])


def test_labels_are_those_of_the_model(viewer, opened, image, press, tmp_path) -> None:
    layer = viewer.add_image(image, scale=(0.5, 0.5), units=("um", "um"))
    panel = opened("Segment")
    assert panel.image.value is layer
    said = press(panel)
    expected, diameter = predicted(image, tmp_path)
    labels = viewer.layers[-1]
    np.testing.assert_array_equal(labels.data, expected)
    assert said == f"15 instances, diameter {diameter:.1f} px"
    assert tuple(labels.scale) == (0.5, 0.5)
    assert labels.units == layer.units
    assert list(labels.features["index"]) == list(range(1, 16))
    np.testing.assert_allclose(labels.features["area_um2"], np.bincount(expected.flat)[1:] / 4)
    panel.auto.value, panel.diameter.value = False, 40.0
    assert press(panel).endswith("diameter 40.0 px")


def test_stacks_and_colors(viewer, opened, image, press) -> None:
    stack = np.stack([image, np.zeros_like(image), image[:, ::-1]])
    viewer.add_image(np.zeros((9, 8, 8)))  # With planes between those of the stack.
    layer = viewer.add_image(stack, scale=(2, 1, 1))
    panel = opened("Segment")
    assert panel.image.value is layer
    layer.name = "a stack"
    assert panel.image.value is layer
    viewer.dims.set_point(0, 4)
    press(panel)
    assert [len(np.unique(plane)) - 1 for plane in viewer.layers[-1].data] == [0, 0, 15]
    panel.all_planes.value = True
    press(panel)
    labels = viewer.layers[-1]
    assert [plane.max() for plane in labels.data] == [15, 0, 30]
    assert list(labels.features["plane"]) == ["0"] * 15 + ["2"] * 15
    color = viewer.add_image(np.repeat(image[..., None], 3, axis=-1), rgb=True)
    panel.image.value = color
    panel.all_planes.value = False
    press(panel)
    assert viewer.layers[-1].data.shape == image.shape
    assert viewer.layers[-1].data.max() == 15


def test_large_images_are_segmented_in_tiles(viewer, opened, image, press) -> None:
    viewer.add_image(np.tile(image, (22, 14)), multiscale=False)
    panel = opened("Segment")
    panel.auto.value, panel.diameter.value = False, 40.0  # Twice as fast.
    assert int(press(panel).split()[0]) == pytest.approx(15 * 22 * 14, rel=0.01)


def test_what_is_wrong_is_said(viewer, opened, image, press) -> None:
    panel = opened("Segment")
    assert press(panel) == "Open an image, and choose its layer."
    viewer.add_image(image[:4])
    assert "at least 8 pixels high and wide" in press(panel)
    viewer.layers.clear()
    viewer.add_image(image)
    panel.preset.line_edit.value = "neclui"
    assert "preset` must be one of" in press(panel)
    panel.preset.line_edit.value = "nuclei"
    assert press(panel, cancel=True) == "cancelled"
    assert len(viewer.layers) == 1
    assert press(panel).startswith("15 instances")


def test_fine_tune(viewer, opened, image, press, tmp_path) -> None:
    viewer.add_image(image, name="discs")
    painted = np.zeros(image.shape, int)
    for k, row in enumerate(range(16, 96, 32)):
        for n, column in enumerate(range(16, 160, 32)):
            painted[disk((row, column), 10)] = 1 + 5 * k + n
    panel = opened("Fine-tune")
    panel.folder.value = tmp_path / "mine"
    assert press(panel).startswith("Choose one or more layers")
    labels = viewer.add_labels(painted)
    panel.painted.value = [labels]
    panel.epochs.value = 1
    assert press(panel) == f"The new preset is {tmp_path / 'mine' / 'run_1' / 'preset'}."
    assert viewer.layers[-1].name == "discs run_1"
    assert viewer.layers[-1].data.max() > 0
    halves = sorted(file.stem for file in (tmp_path / "mine" / "images").iterdir())
    assert [one.partition("_")[0] for one in halves] == ["discs", "discs"]
    for part, whole in (("images", image), ("instances", painted)):
        files = [imread(tmp_path / "mine" / part / f"{half}.tif") for half in halves]
        np.testing.assert_array_equal(np.concatenate(files, 1), whole)
    assert press(panel, cancel=True) == "cancelled"
    assert not (tmp_path / "mine" / "run_2" / "preset").exists()
    panel.preset.line_edit.value = "neclui"
    assert "--preset must be one of" in press(panel)


def test_labels_without_their_image(viewer, opened, image, press, tmp_path) -> None:
    panel = opened("Fine-tune")
    panel.folder.value = tmp_path / "mine"
    for layer in (np.zeros((20, 20), int), np.ones(image.shape, int), np.zeros(image.shape, int)):
        viewer.add_labels(layer)
    small, full, empty = viewer.layers
    panel.painted.value = [small]
    assert "No image layer has the size" in press(panel)
    named = viewer.add_image(image, name="Labels")
    panel.painted.value = [empty]
    assert "are empty" in press(panel)
    viewer.add_image(image, name="other")
    full.name = "full"
    panel.painted.value = [full]
    assert "fit several images" in press(panel)
    full.name = "Labels, corrected"
    named.data = np.where(image > 100, np.nan, image)
    assert "NaN" in press(panel)
    assert not (tmp_path / "mine").exists()


def test_nothing_runs_on_without_its_panel(viewer, opened, image, qtbot) -> None:
    viewer.add_image(image)
    panel = opened("Segment")
    panel.start.changed.emit(True)
    qtbot.waitUntil(lambda: panel.process._process is not None, timeout=1000 * SECONDS)
    process = panel.process._process
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: process.poll() is not None, timeout=1000 * SECONDS)
