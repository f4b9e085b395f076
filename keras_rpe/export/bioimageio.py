"""Packages for bioimage.io, the model zoo of bioimage analysis."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_rpe.export.onnx import OPSET, export_onnx
from keras_rpe.export.saved_model import MAX_PIXELS, serving_signatures, write_signatures
from keras_rpe.optional_import import optional_import
from keras_rpe.results import rgb_array
from keras_rpe.version import __version__

if TYPE_CHECKING:
    from keras_rpe.models import Task

_PAPER = "Kong & Fowlkes: Recurrent Pixel Embedding for Instance Grouping. CVPR 2018."
_DOI = "10.1109/CVPR.2018.00940"
_DIFFERENT = 1000  # Pixels of a million that may differ between runtimes.
_DOCUMENTATION = """# {name}

Pixels go in, and what the model finds comes out: normalization, the network, grouping and decoding
are part of the graph, in ONNX as in TensorFlow. The input is an 8-bit RGB image of any size, the
output `{output}`. The weights were written by keras_rpe {version}; both files give more, by name:
{others}.

# Validation

The model card of the preset has the figures, measured on images that were not trained on.
"""


def export_bioimageio(
    model: Task, path: str | os.PathLike[str], image: np.ndarray | None = None
) -> Path:
    """Write a package for bioimage.io: the weights as ONNX and SavedModel, with a test.

    Its `rdf.yaml` describes the input, an 8-bit RGB image of any size, and the map that is the
    first output, such as `labels`. The ONNX file is the one that `export_onnx` writes; the
    SavedModel has the signatures of `export_saved_model`, and `serve` for that output alone. Before
    an upload, add your name to `rdf.yaml`.

    Args:
        model: The model.
        path: The file, `….zip`.
        image: One that the model is for, of 8 bits, gray or RGB `(H, W[, 3])`: it becomes the
            test, with what the model finds in it, and the cover. Default: a stained slide of
            scikit-image.

    Returns:
        The file.

    Raises:
        ValueError: If the file has another ending, or the image is none.
        ImportError: If the extra `bioimageio` is not installed.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".zip":
        raise ValueError(f"`filepath` must end in .zip. Received: filepath={str(path)!r}")
    spec = optional_import("bioimageio.spec", "bioimageio")
    onnxruntime = optional_import("onnxruntime", "bioimageio")
    if image is None:
        from skimage.data import immunohistochemistry

        image = immunohistochemistry()[:256, :256]
    if np.asarray(image).dtype != np.uint8:
        raise ValueError(f"`image` must be uint8. Received: {np.asarray(image).dtype}")
    pixels = rgb_array(image).astype(np.uint8)
    with tempfile.TemporaryDirectory(dir=path.resolve().parent) as name:
        folder = Path(name)
        onnx_file = export_onnx(model, folder / "weights.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # It warns of inputs that may be left out.
        session = onnxruntime.InferenceSession(onnx_file, options)
        output, *others = (one.name for one in session.get_outputs())
        (found,) = session.run([output], {"image": pixels[None]})
        bundle = _saved_model(model, folder, output)
        described = _description(model, folder, pixels, found, onnx_file, bundle, output, others)
        written = folder / "package.zip"
        spec.save_bioimageio_package(described, output_path=written)
        written.replace(path)
    return path


def _saved_model(model: Task, folder: Path, output: str) -> Path:
    """A zipped SavedModel; of several outputs, tools of bioimage.io do not know the order."""
    signatures = serving_signatures(model, MAX_PIXELS)
    serve, specs = signatures["serving_default"]

    def serve_one(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: serve(image)[output]}

    write_signatures({**signatures, "serve": (serve_one, specs)}, str(folder / "saved_model"))
    return Path(shutil.make_archive(str(folder / "saved_model"), "zip", folder / "saved_model"))


def _description(
    model: Task,
    folder: Path,
    pixels: np.ndarray,
    found: np.ndarray,
    onnx_file: Path,
    bundle: Path,
    output: str,
    others: list[str],
) -> Any:
    """What `rdf.yaml` says."""
    v = optional_import("bioimageio.spec.model.v0_5", "bioimageio")
    generic = optional_import("bioimageio.spec.generic.v0_3", "bioimageio")
    name = f"keras_rpe {Path(model.source).name if model.source else model.name}"
    size = v.ParameterizedSize(min=64, step=1)
    batch = v.BatchAxis()
    image = v.InputTensorDescr(
        id="image",
        description="RGB",
        axes=[
            batch,
            v.SpaceInputAxis(id="y", size=size),
            v.SpaceInputAxis(id="x", size=size),
            v.ChannelAxis(id="channel", channel_names=["red", "green", "blue"]),
        ],
        test_tensor=v.FileDescr(source=_saved(folder, "image", pixels[None])),
        data=v.IntervalOrRatioDataDescr(type="uint8"),
    )
    result = v.OutputTensorDescr(
        id=output,
        axes=[batch, *_axes(v, found.shape[3:])],
        test_tensor=v.FileDescr(source=_saved(folder, output, found)),
        data=v.IntervalOrRatioDataDescr(type=str(found.dtype)),
    )
    text = _DOCUMENTATION.format(
        name=name,
        version=__version__,
        output=output,
        others=", ".join(f"`{other}`" for other in others) or "nothing",
    )
    documentation = folder / "documentation.md"
    documentation.write_text(text, encoding="utf-8")
    onnx = v.OnnxWeightsDescr(source=onnx_file, opset_version=OPSET)
    saved = v.TensorflowSavedModelBundleWeightsDescr(
        source=bundle, tensorflow_version=v.Version(tf.__version__), parent="onnx"
    )
    tolerance = v.ReproducibilityTolerance(mismatched_elements_per_million=_DIFFERENT)
    return v.ModelDescr(
        name=name,
        description=f"{type(model).__name__} of keras_rpe: recurrent pixel embedding.",
        authors=[generic.Author(name="The keras_rpe developers")],
        cite=[generic.CiteEntry(text=_PAPER, doi=_DOI)],
        license="Apache-2.0",
        tags=["2d", "keras", "onnx", "segmentation", "tensorflow"],
        covers=[v.FileDescr(source=_cover(folder, pixels, found, output))],
        documentation=v.FileDescr(source=documentation),
        inputs=[image],
        outputs=[result],
        weights=v.WeightsDescr(onnx=onnx, tensorflow_saved_model_bundle=saved),
        config=v.Config(bioimageio=v.BioimageioConfig(reproducibility_tolerance=[tolerance])),
    )


def _saved(folder: Path, name: str, values: np.ndarray) -> Path:
    path = folder / f"test_{name}.npy"
    np.save(path, values)
    return path


def _axes(v: Any, channels: tuple[int, ...]) -> list[Any]:
    """The axes of an output after that of the batch."""
    axes = [
        v.SpaceOutputAxis(id=axis, size=v.SizeReference(tensor_id="image", axis_id=axis))
        for axis in "yx"
    ]
    for count in channels:
        names = [f"channel{k}" for k in range(count)]
        axes.append(v.ChannelAxis(id="channel", channel_names=names))
    return axes


def _cover(folder: Path, pixels: np.ndarray, found: np.ndarray, output: str) -> Path:
    """The image, and beside it the instances that were found."""
    from skimage.io import imsave

    from keras_rpe.visualization import overlay_instances

    shown = [pixels]
    if output == "labels":
        shown.append(overlay_instances(pixels, found[0]))
    path = folder / "cover.png"
    imsave(path, np.concatenate(shown, axis=1), check_contrast=False)
    return path
