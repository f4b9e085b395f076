"""The panel that segments an image layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox
from napari import Viewer
from napari.layers import Image

from keras_rpe_napari.model_process import ModelProcess
from keras_rpe_napari.panel import Job, Panel, Report

if TYPE_CHECKING:
    import pandas

IMAGE = "keras_rpe image"  # Key in the metadata of labels: the name of the layer that they are of.
_MICROMETERS = ("micrometer", "micron", "um", "µm")
Place = tuple[int, ...]


def sample() -> list[tuple[Any, ...]]:
    """The nuclear stain of a section of colon, an image that comes with scikit-image."""
    from keras_rpe_cli.demo import demo_image

    return [(demo_image(), {"name": "nuclear stain"}, "image")]


class SegmentPanel(Panel):
    """Segments an image layer, and adds a layer of labels with a row of features for each.

    Of a stack, the plane that is shown or all planes are segmented, each by itself; numbers go on
    from one plane to the next.

    Args:
        napari_viewer: The window that the panel is part of.

    Attributes:
        image: The image layer.
        preset: The name of a preset, or its folder.
        auto: Whether the diameter of the objects is found in the image.
        diameter: Otherwise the diameter, in pixels.
        all_planes: Whether all planes of a stack are segmented.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        self.viewer, self.process = napari_viewer, ModelProcess()
        self.image = ComboBox(label="image", choices=lambda _: layers_of(napari_viewer, Image))
        self.preset = preset_field()
        self.auto = CheckBox(value=True, text="find the diameter", label="")
        self.diameter = FloatSpinBox(
            value=20.0, min=1, max=2000, step=1, label="diameter", tooltip="in pixels"
        )
        self.diameter.enabled = False
        self.all_planes = CheckBox(value=False, text="all planes of a stack", label="")
        self.auto.changed.connect(lambda auto: setattr(self.diameter, "enabled", not auto))
        fields = [self.image, self.preset, self.auto, self.diameter, self.all_planes]
        super().__init__(fields, "Segment", self._prepare_job, self.process.stop)

    def _prepare_job(self) -> Job:
        layer: Image | None = self.image.value
        if layer is None:
            raise ValueError("Open an image, and choose its layer.")
        places = planes_of(layer) if self.all_planes.value else [self._shown(layer)]
        diameter = "auto" if self.auto.value else self.diameter.value
        preset = self.preset.line_edit.value.strip()

        def work(report: Report) -> Found:
            return segment_planes(self.process, layer, places, preset, diameter, report)

        def show(found: Found) -> None:
            self.status.value = add_labels(self.viewer, layer, found)

        return Job(work, show)

    def _shown(self, layer: Image) -> Place:
        """The plane of a layer that the window shows."""
        dims = self.viewer.dims
        if set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}:
            raise ValueError("The window must show the last two axes: planes are those of Y and X.")
        index = np.round(layer.world_to_data(dims.point)[:-2]).astype(int)
        place = tuple(index.tolist())
        if place not in planes_of(layer):
            raise ValueError(f"The layer {layer.name!r} has no plane where the window is.")
        return place


def layers_of(viewer: Viewer, kind: type) -> list[Any]:
    """The layers of a kind, the last one first."""
    return [layer for layer in reversed(viewer.layers) if isinstance(layer, kind)]


def preset_field() -> FileEdit:
    """A field for a preset, whose `line_edit` holds its name or its folder."""
    return FileEdit(
        mode=FileDialogMode.EXISTING_DIRECTORY,
        value=Path("nuclei"),
        label="preset",
        tooltip="The name of a preset, such as nuclei, or its folder",
    )


def pixels_of(layer: Any) -> Any:
    """The array of a layer, at full resolution."""
    return layer.data[0] if layer.multiscale else layer.data


def planes_of(layer: Image) -> list[Place]:
    """The planes of a layer, as indices of the axes before rows and columns."""
    shape = pixels_of(layer).shape
    return list(itertools.product(*map(range, shape[: -3 if layer.rgb else -2])))


class Found(NamedTuple):
    """What was found in a layer."""

    labels: np.ndarray  # int32, of the shape of the layer.
    features: pandas.DataFrame  # A row for each instance; `index` is its label.
    diameter: float | None  # The median over the planes.


def segment_planes(
    process: ModelProcess,
    layer: Image,
    places: Sequence[Place],
    preset: str,
    diameter: float | str,
    report: Report,
) -> Found:
    """Segment planes of a layer, each by itself.

    Args:
        process: Where the model runs.
        layer: The layer.
        places: The planes.
        preset: The name of a preset, or its folder.
        diameter: Of the objects, in pixels, or "auto".
        report: Is told how much is done, and may end the work by an exception.

    Returns:
        The labels, which go on from one plane to the next, and what was measured.

    Raises:
        ValueError: If the preset or the pixels cannot be used.
        ConnectionError: If the process of the model has ended.
    """
    import pandas

    pixels, pixel_size = pixels_of(layer), _pixel_size(layer)
    labels = np.zeros(pixels.shape[:-1] if layer.rgb else pixels.shape, np.int32)
    tables, diameters, count = [], [], 0
    for k, place in enumerate(places):
        plane = np.asarray(pixels[place])
        if len(places) > 1:
            report(k, len(places), f"plane {k + 1} of {len(places)}")
        else:
            report(0, 0, "segmenting …")
        found, measured, size = process.segment(
            plane,
            preset,
            diameter,
            pixel_size,
            lambda done, total: report(done, total, f"tile {done} of {total}"),
        )
        labels[place] = np.where(found > 0, found + count, 0)
        table = pandas.DataFrame(measured)
        table.insert(0, "index", table.pop("instance") + count)
        if place:
            table.insert(1, "plane", " ".join(map(str, place)))
        tables.append(table)
        count += len(table)
        diameters += [] if size is None else [size]
    return Found(
        labels,
        pandas.concat(tables, ignore_index=True),
        float(np.median(diameters)) if diameters else None,
    )


def _pixel_size(layer: Image) -> float | None:
    """The side of a pixel in µm, where the layer knows it."""
    height, width = layer.scale[-2:]
    return float(width) if str(layer.units[-1]) in _MICROMETERS and height == width else None


def add_labels(viewer: Viewer, layer: Image, found: Found, name: str = "instances") -> str:
    """Add a layer of labels where an image layer is.

    Args:
        viewer: The window.
        layer: The image layer.
        found: What was found in it.
        name: What the labels are called, after the name of the image.

    Returns:
        What was found, as a sentence.
    """
    viewer.add_labels(
        found.labels,
        name=f"{layer.name} {name}",
        features=found.features,
        metadata={IMAGE: layer.name},
        affine=layer.affine,
        scale=layer.scale,
        translate=layer.translate,
        rotate=layer.rotate,
        shear=layer.shear,
        units=layer.units,
    )
    count = len(found.features)
    text = f"{count} instance{'' if count == 1 else 's'}"
    return text if found.diameter is None else f"{text}, diameter {found.diameter:.1f} px"
