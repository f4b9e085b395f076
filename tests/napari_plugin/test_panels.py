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

from keras_rpe_napari.fine_tune import FineTunePanel
from keras_rpe_napari.segment import SegmentPanel

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


def test_labels_are_those_of_the_model(viewer, image, press, tmp_path) -> None:
    layer = viewer.add_image(image, scale=(0.5, 0.5), units=("um", "um"))
    panel = SegmentPanel(viewer)
    assert panel.image.value is layer
    said = press(panel)
    expected, diameter = predicted(image, tmp_path)
    labels = viewer.layers[-1]
    np.testing.assert_array_equal(labels.data, expected)
    assert said == f"15 instances, diameter {diameter:.1f} px"
    assert tuple(labels.scale) == (0.5, 0.5)
    assert list(labels.features["index"]) == list(range(1, 16))
    np.testing.assert_allclose(labels.features["area_um2"], np.bincount(expected.flat)[1:] / 4)
    panel.auto.value, panel.diameter.value = False, 40.0
    assert press(panel).endswith("diameter 40.0 px")


def test_stacks_and_colors(viewer, image, press) -> None:
    stack = np.stack([image, np.zeros_like(image), image[:, ::-1]])
    viewer.add_image(stack)
    panel = SegmentPanel(viewer)
    viewer.dims.set_current_step(0, 2)
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


def test_large_images_are_segmented_in_tiles(viewer, image, press) -> None:
    viewer.add_image(np.tile(image, (22, 14)), multiscale=False)
    panel = SegmentPanel(viewer)
    panel.auto.value, panel.diameter.value = False, 40.0  # Twice as fast.
    assert int(press(panel).split()[0]) == pytest.approx(15 * 22 * 14, rel=0.01)


def test_what_is_wrong_is_said(viewer, image, press) -> None:
    panel = SegmentPanel(viewer)
    assert press(panel) == "Open an image, and choose its layer."
    viewer.add_image(image[:4])
    assert "at least 8 pixels high and wide" in press(panel)
    viewer.layers.clear()
    viewer.add_image(image)
    panel.preset.line_edit.value = "neclui"
    assert "`preset` must be one of" in press(panel)
    panel.preset.line_edit.value = "nuclei"
    assert press(panel, cancel=True) == "cancelled"
    assert len(viewer.layers) == 1
    assert press(panel).startswith("15 instances")


def test_fine_tune(viewer, image, press, tmp_path) -> None:
    viewer.add_image(image, name="discs")
    painted = np.zeros(image.shape, int)
    for k, row in enumerate(range(16, 96, 32)):
        for n, column in enumerate(range(16, 160, 32)):
            painted[disk((row, column), 10)] = 1 + 5 * k + n
    panel = FineTunePanel(viewer)
    panel.folder.value = tmp_path / "mine"
    assert press(panel).startswith("Choose one or more layers")
    labels = viewer.add_labels(painted)
    panel.painted.value = [labels]
    panel.epochs.value = 1
    assert press(panel) == f"The new preset is {tmp_path / 'mine' / 'run_1' / 'preset'}."
    assert viewer.layers[-1].name == "discs run_1"
    assert viewer.layers[-1].data.max() > 0
    for part, whole in (("images", image), ("instances", painted)):
        files = sorted((tmp_path / "mine" / part).iterdir())
        assert [file.name for file in files] == ["discs_first.tif", "discs_second.tif"]
        np.testing.assert_array_equal(np.concatenate(list(map(imread, files)), 1), whole)
    assert press(panel, cancel=True) == "cancelled"
    assert not (tmp_path / "mine" / "run_2" / "preset").exists()
    viewer.add_labels(np.zeros((5, 5), int), name="small")
    panel.painted.value = [viewer.layers["small"]]
    assert "No image layer has the size" in press(panel)
    viewer.add_image(image, name="other")
    panel.painted.value = [labels]
    assert "fit several images" in press(panel)
