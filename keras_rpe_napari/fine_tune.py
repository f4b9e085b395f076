"""The panel that trains a preset further on painted labels."""

from __future__ import annotations

import hashlib
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

from keras_rpe_napari.model_process import ModelProcess, environment
from keras_rpe_napari.panel import Job, Panel, Report
from keras_rpe_napari.segment import (
    IMAGE,
    Found,
    add_labels,
    layers_of,
    pixels_of,
    planes_of,
    preset_field,
    segment_planes,
)

_TRAIN = "import sys; from keras_rpe_cli import main; sys.exit(main())"
_EPOCH = re.compile(r"^Epoch (\d+)/(\d+)", re.M)
_PRECISION = re.compile(r"val_ap50: ([\d.]+)")
_ERROR = re.compile(r"error: (.*)", re.S)
_SECONDS = 0.2  # Between two looks at what the training says.
_MIN_SIDE = 16  # Of an image that may be cut into two.


class FineTunePanel(Panel):
    """Trains a preset further on painted labels, and shows what it then finds.

    Every object of a painted plane must be painted, with a number of its own; planes without a
    painted pixel are left out. The images go into the folder of the panel, as `keras-rpe train`
    takes them, and stay there: those of an earlier session are trained on again. Each training
    gets a folder `run_1`, `run_2`, … in it, whose `preset` is the result.

    Args:
        napari_viewer: The window that the panel is part of.

    Attributes:
        painted: The layers of labels.
        preset: Where training begins, the name of a preset or its folder.
        epochs: How long it takes at most.
        folder: Where images and presets are written.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        self.viewer, self.process, self.training = napari_viewer, ModelProcess(), Training()
        self.painted = Select(label="labels", choices=lambda _: layers_of(napari_viewer, Labels))
        self.preset = preset_field()
        self.epochs = SpinBox(value=20, min=1, max=10_000, label="epochs")
        self.folder = FileEdit(
            mode=FileDialogMode.EXISTING_DIRECTORY, value=Path("fine_tuned"), label="folder"
        )
        fields = [self.painted, self.preset, self.epochs, self.folder]
        super().__init__(fields, "Fine-tune", self._prepare_job, self._stop_processes)

    def _stop_processes(self) -> None:
        self.training.stop()
        self.process.stop()

    def _prepare_job(self) -> Job:
        if not self.painted.value:
            raise ValueError("Choose one or more layers of labels that you have painted.")
        images = {labels: image_of(labels, self.viewer) for labels in self.painted.value}
        if len(set(images.values())) < len(images):
            raise ValueError("Two of the chosen layers of labels are of one image: choose one.")
        folder, preset = Path(str(self.folder.value)), self.preset.line_edit.value.strip()
        epochs = int(self.epochs.value)

        def work(report: Report) -> tuple[Path, list[Found]]:
            report(0, 0, "writing the images …")
            pairs = [pair for one, image in images.items() for pair in painted_planes(image, one)]
            write_pairs(pairs, folder)
            self.process.stop()  # Training may need all of the GPU.
            trained = self.training.run(folder, preset, epochs, report)
            return trained, [
                segment_planes(self.process, image, planes_of(image), str(trained), "auto", report)
                for image in images.values()
            ]

        def show(result: tuple[Path, list[Found]]) -> None:
            trained, found = result
            for image, one in zip(images.values(), found):
                add_labels(self.viewer, image, one, trained.parent.name)
            self.status.value = f"The new preset is {trained}."

        return Job(work, show)


class Pair(NamedTuple):
    """A plane of an image, and the objects painted in it."""

    name: str
    image: np.ndarray
    labels: np.ndarray


def image_of(labels: Labels, viewer: Viewer) -> Image:
    """Find the image layer that labels belong to.

    Args:
        labels: The layer of labels.
        viewer: The window with both.

    Returns:
        The layer that the labels were found in; or the one of their size, if there are several the
        one with whose name theirs begins.

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
    begun = [image for image in fitting if labels.name.startswith(image.name)]
    found = named or sorted(begun, key=lambda image: len(image.name))[-1:] or fitting
    if len(found) == 1:
        return found[0]
    many = ", ".join(image.name for image in found)
    raise ValueError(
        f"The labels {labels.name!r} fit several images, {many}: begin their name with that of one."
        if found
        else f"No image layer has the size of the labels {labels.name!r}, {labels.data.shape}."
    )


def painted_planes(image: Image, labels: Labels) -> list[Pair]:
    """Take the planes of an image in which anything is painted.

    Args:
        image: The image layer.
        labels: Its layer of labels.

    Returns:
        The planes, named after the layer and their pixels, so that an image has one name in all
        sessions and no two have the same.

    Raises:
        ValueError: If a plane cannot be trained on.
    """
    pixels, painted = pixels_of(image), np.asarray(labels.data)
    pairs = []
    for place in planes_of(image):
        if not painted[place].any():
            continue
        plane = np.ascontiguousarray(pixels[place])
        if min(painted[place].shape) < _MIN_SIDE:
            raise ValueError(
                f"Images must be at least {_MIN_SIDE} pixels high and wide. "
                f"Received: {image.name!r} of {painted[place].shape}"
            )
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            raise ValueError(f"The image {image.name!r} holds NaN or infinite pixels.")
        if painted[place].min() < 0:
            raise ValueError(f"The labels {labels.name!r} hold negative numbers.")
        digest = hashlib.blake2b(plane.tobytes(), digest_size=4).hexdigest()
        name = re.sub(r"\W+", "_", image.name)
        pairs.append(Pair(f"{name}_{digest}", plane, painted[place]))
    return pairs


def write_pairs(pairs: Sequence[Pair], folder: Path) -> None:
    """Write images and their labels as `keras-rpe train` takes them.

    A single image is cut into two, as training needs one to train on and one to validate on.

    Args:
        pairs: The images.
        folder: Gets `images` and `instances`; other images in it stay.

    Raises:
        ValueError: If there are none.
        OSError: If a file cannot be written.
    """
    if not pairs:
        raise ValueError("The chosen layers of labels are empty: paint every object of an image.")
    parts = folder / "images", folder / "instances"
    for part in parts:
        part.mkdir(parents=True, exist_ok=True)
        for name, *_ in pairs:  # Whole or in halves, an image must not be there twice.
            for ending in ("", *_HALVES):
                (part / f"{name}{ending}.tif").unlink(missing_ok=True)
    if len(pairs) == 1 and not any(parts[0].glob("*.tif")):
        pairs = _halves(pairs[0])
    for name, image, labels in pairs:
        image = image.astype(np.uint8) * 255 if image.dtype == bool else image
        kind = np.uint16 if labels.max() < 2**16 else np.uint32
        _write(parts[0] / f"{name}.tif", image, "rgb" if image.ndim == 3 else "minisblack")
        _write(parts[1] / f"{name}.tif", labels.astype(kind), "minisblack")


_HALVES = "_first", "_second"


def _halves(pair: Pair) -> list[Pair]:
    axis = int(np.argmax(pair.labels.shape))
    images = np.array_split(pair.image, 2, axis)
    labels = np.array_split(pair.labels, 2, axis)
    names = [f"{pair.name}{half}" for half in _HALVES]
    return [Pair(*parts) for parts in zip(names, images, labels)]


def _write(path: Path, pixels: np.ndarray, colors: str) -> None:
    import tifffile

    part = path.with_suffix(".part")  # Nothing takes that for an image, if it cannot be finished.
    tifffile.imwrite(part, pixels, photometric=colors)
    part.replace(path)


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
            report: Is told the epochs, and may end the work by an exception.

        Returns:
            The folder of the new preset.

        Raises:
            ValueError: With what the training says, if it fails.
            OSError: If the folder of the run cannot be made.
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
                env=environment(),
            )
        try:
            while process.poll() is None:
                text = log.read_text(encoding="utf-8", errors="replace")
                begun, precisions = _EPOCH.findall(text), _PRECISION.findall(text)
                epoch = int(begun[-1][0]) if begun else 0
                figure = f", average precision {float(precisions[-1]):.2f}" if precisions else ""
                what = f"epoch {epoch}{figure}" if epoch else "starting …"
                report(max(epoch - 1, 0), epochs, what)
                time.sleep(_SECONDS)
        finally:
            self.stop()
        if process.returncode:
            said = _ERROR.findall(log.read_text(encoding="utf-8", errors="replace"))
            end = f"Training has ended with {process.returncode}, see {log}."
            raise ValueError(said[-1].strip() if said else end)
        return run / "preset"

    def stop(self) -> None:
        """End the training; what it has written stays."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
