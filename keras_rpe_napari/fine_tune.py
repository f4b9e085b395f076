"""The panel that trains a preset further on painted labels."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import FileEdit, Select, SpinBox
from napari import Viewer
from napari.layers import Image, Labels

from keras_rpe_napari.model_process import ModelProcess
from keras_rpe_napari.panel import Job, Panel, Report
from keras_rpe_napari.segment import (
    IMAGE,
    Found,
    add_labels,
    layers_of,
    pixels_of,
    preset_field,
    segment_planes,
)

_TRAIN = "from keras_rpe_cli import main; main()"
_EPOCH = re.compile(r"^Epoch (\d+)/(\d+)", re.M)
_PRECISION = re.compile(r"val_ap50: ([\d.]+)")
_SECONDS = 0.2  # Between two looks at what the training says.


class Pair(NamedTuple):
    """A plane of an image, and the objects painted in it."""

    name: str
    image: np.ndarray
    labels: np.ndarray


class FineTunePanel(Panel):
    """Trains a preset further on painted labels, and shows what it then finds.

    Every object of a painted plane must be painted, with a number of its own; planes without a
    painted pixel are left out. The images go into the folder of the panel, as `keras-rpe train`
    takes them, and stay there: those of an earlier session are trained on again. Each training
    gets a folder `run_1`, `run_2`, … in it, whose `preset` is the result.

    Args:
        viewer: The window that the panel is part of.

    Attributes:
        painted: The layers of labels.
        preset: Where training begins, the name of a preset or its folder.
        epochs: How long it takes at most.
        folder: Where images and presets are written.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.painted = Select(label="labels", choices=lambda _: layers_of(viewer, Labels))
        self.preset = preset_field()
        self.epochs = SpinBox(value=20, min=1, max=10_000, label="epochs")
        self.folder = FileEdit(
            mode=FileDialogMode.EXISTING_DIRECTORY, value=Path("fine_tuned"), label="folder"
        )
        fields = [self.painted, self.preset, self.epochs, self.folder]
        super().__init__(viewer, fields, "Fine-tune", self._prepare_job)
        self.process, self.training = ModelProcess(), Training()

    def _prepare_job(self) -> Job:
        if not self.painted.value:
            raise ValueError("Choose one or more layers of labels that you have painted.")
        images = {layer: image_of(layer, self.viewer) for layer in self.painted.value}
        pairs = [pair for one, image in images.items() for pair in painted_planes(image, one)]
        if not pairs:
            raise ValueError(
                "The chosen layers of labels are empty: paint every object of an image."
            )
        folder, preset = Path(str(self.folder.value)), self.preset.line_edit.value.strip()
        epochs = int(self.epochs.value)

        def work(report: Report) -> tuple[Path, list[Found]]:
            write_pairs(pairs, folder)
            trained = self.training.run(folder, preset, epochs, report)
            found = []
            for image in images.values():
                pixels = pixels_of(image)
                stack = pixels.shape[:-3] if image.rgb else pixels.shape[:-2]
                places = list(itertools.product(*map(range, stack)))
                one = segment_planes(
                    self.process,
                    pixels,
                    bool(image.rgb),
                    places,
                    str(trained),
                    "auto",
                    None,
                    report,
                )
                found.append(one)
            return trained, found

        def show(result: tuple[Path, list[Found]]) -> None:
            trained, found = result
            for image, one in zip(images.values(), found):
                add_labels(self.viewer, image, one, trained.parent.name)
            self.status.value = f"The new preset is {trained}."

        def stop() -> None:
            self.training.stop()
            self.process.stop()

        return Job(work, show, stop)


def image_of(labels: Labels, viewer: Viewer) -> Image:
    """The image layer that labels belong to.

    Args:
        labels: The layer of labels.
        viewer: The window with both.

    Returns:
        The layer that the labels were found in; or the one of their size, if there are several the
        one whose name theirs begins with.

    Raises:
        ValueError: If there is no such layer, or several.
    """
    fitting = [
        image
        for image in layers_of(viewer, Image)
        if (pixels_of(image).shape[:-1] if image.rgb else pixels_of(image).shape)
        == labels.data.shape
    ]
    named = [image for image in fitting if image.name == labels.metadata.get(IMAGE)]
    named = named or [image for image in fitting if labels.name.startswith(image.name)]
    found = named or fitting
    if len(found) == 1:
        return found[0]
    many = ", ".join(image.name for image in found)
    raise ValueError(
        f"The labels {labels.name!r} fit several images, {many}: begin their name with that of one."
        if found
        else f"No image layer has the size of the labels {labels.name!r}, {labels.data.shape}."
    )


def painted_planes(image: Image, labels: Labels) -> list[Pair]:
    """The planes of an image in which anything is painted."""
    pixels, painted = pixels_of(image), np.asarray(labels.data)
    stem = re.sub(r"\W+", "_", image.name)
    return [
        Pair("_".join([stem, *map(str, place)]), np.asarray(pixels[place]), painted[place])
        for place in np.ndindex(painted.shape[:-2])
        if painted[place].any()
    ]


def write_pairs(pairs: Sequence[Pair], folder: Path) -> None:
    """Write images and their labels as `keras-rpe train` takes them.

    A single image is cut into two, as training needs one to train on and one to validate on.
    """
    for part in ("images", "instances"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if len(pairs) == 1:
        pairs = _halves(pairs[0])
    for name, image, labels in pairs:
        image = image.astype(np.uint8) * 255 if image.dtype == bool else image
        colors = "rgb" if image.ndim == 3 else "minisblack"
        kind = np.uint16 if labels.max() < 2**16 else np.uint32
        _write(folder / "images" / f"{name}.tif", image, colors)
        _write(folder / "instances" / f"{name}.tif", labels.astype(kind), "minisblack")


def _write(path: Path, pixels: np.ndarray, colors: str) -> None:
    import tifffile

    part = path.with_suffix(".part")  # Nothing takes that for an image, if it cannot be finished.
    tifffile.imwrite(part, pixels, photometric=colors)
    part.replace(path)


def _halves(pair: Pair) -> list[Pair]:
    axis = int(np.argmax(pair.labels.shape))
    images = np.array_split(pair.image, 2, axis)
    labels = np.array_split(pair.labels, 2, axis)
    names = (f"{pair.name}_first", f"{pair.name}_second")
    return [Pair(*parts) for parts in zip(names, images, labels)]


class Training:
    """A process that trains a preset further, by `keras-rpe train`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, folder: Path, preset: str, epochs: int, report: Report) -> Path:
        """Train, and wait until that has ended.

        Args:
            folder: Of `images` and `instances`.
            preset: The name of a preset, or its folder.
            epochs: How long training takes at most.
            report: Is told the epochs.

        Returns:
            The folder of the new preset.

        Raises:
            ValueError: With what the training says, if it fails.
        """
        run = next(path for k in itertools.count(1) if not (path := folder / f"run_{k}").exists())
        run.mkdir()
        log = run / "training.txt"
        command = [sys.executable, "-c", _TRAIN, "train", folder, "--out", run, "--preset", preset]
        with log.open("wb") as file:
            process = self._process = subprocess.Popen(
                [*map(str, command), "--epochs", str(epochs)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        while process.poll() is None:
            text = log.read_text(encoding="utf-8", errors="replace")
            begun, precisions = _EPOCH.findall(text), _PRECISION.findall(text)
            epoch = int(begun[-1][0]) if begun else 0
            figure = f", average precision {float(precisions[-1]):.2f}" if precisions else ""
            report(max(epoch - 1, 0), epochs, f"epoch {epoch}{figure}" if epoch else "starting …")
            time.sleep(_SECONDS)
        if process.returncode:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ValueError(said[-1] if said else f"Training has ended with {process.returncode}.")
        return run / "preset"

    def stop(self) -> None:
        """End the training; what it has written stays."""
        if self._process is not None:
            self._process.kill()
