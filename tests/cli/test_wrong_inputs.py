"""What a command says of an input that it cannot use: the file, what is in it, and what helps."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import BAD_IMAGES, assert_one_line_error
from PIL import Image

from keras_rpe.data import write_labels

Write = Callable[[Path], object]


def _rgb(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype("uint8")
    Image.fromarray(noise).save(path)


def _stack(axes: str, *shape: int) -> Write:
    return lambda path: tifffile.imwrite(
        path, np.zeros(shape, "uint16"), imagej=True, metadata={"axes": axes}
    )


def _series(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((32, 32), "uint8"))
        file.write(np.zeros((16, 20), "uint8"))


def _huge(path: Path) -> None:
    """A PNG whose header promises more pixels than any memory has."""
    _rgb(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 2**30, 2**30)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def _table(path: Path) -> None:
    path.mkdir()
    (path / "instances.csv").write_text("image,score\na.png,3\n")


# The file, its content, further options of `segment`, and what the message has to say.
IMAGES: list[tuple[str, Write, tuple[str, ...], tuple[str, ...]]] = [
    ("two.tif", _stack("CYX", 2, 32, 32), (), ("2 channels", "--channel")),
    ("five.tif", _stack("CYX", 5, 32, 32), (), ("5 channels", "--channel")),
    ("z.tif", _stack("ZYX", 7, 32, 32), (), ("7 images", "--page", "--project")),
    ("time.tif", _stack("TYX", 4, 32, 32), (), ("4 images", "--page", "--project")),
    ("two.tif", _stack("CYX", 2, 32, 32), ("--channel", "3"), ("2 channels", "--channel 3")),
    ("z.tif", _stack("ZYX", 7, 32, 32), ("--page", "8"), ("7 pages", "--page 8")),
    ("one.png", _rgb, ("--page", "2"), ("one page", "--page 2")),
    ("series.tif", _series, (), ("2 images", "differ", "save")),
    ("huge.png", _huge, (), ("1152921504606846976 pixels",)),
    ("text.png", BAD_IMAGES["text.png"], (), ("not a", "PNG", "TIFF")),
    ("scan.czi", BAD_IMAGES["text.png"], (), ("not a", "PNG", "TIFF")),
    ("empty.png", BAD_IMAGES["empty.png"], (), ("0 bytes",)),
    ("truncated.png", BAD_IMAGES["truncated.png"], (), ("cut short",)),
    ("pixel.png", BAD_IMAGES["pixel.png"], (), ("1 x 1", "8")),
    ("nan.tif", BAD_IMAGES["nan.tif"], (), ("NaN",)),
    ("folder", Path.mkdir, (), ("no image files", ".tif")),
    ("missing.png", lambda path: None, (), ("does not exist",)),
]


@pytest.mark.parametrize(("name", "write", "options", "parts"), IMAGES)
def test_an_image(run, tiny_preset, tmp_path, name, write, options, parts):
    write(tmp_path / name)
    command = ("segment", tmp_path / name, "--preset", tiny_preset, "--out", tmp_path / "out")
    outcome = run(*command, *options)
    assert_one_line_error(outcome, str(tmp_path / name), *parts)
    assert not (tmp_path / "out").exists()


OPTIONS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("--diameter", "large"), ("--diameter", "auto", "large")),
    (("--diameter", "0"), ("--diameter", "0")),
    (("--pixel-size", "-1"), ("--pixel-size", "-1")),
    (("--outlines", "svg"), ("--outlines", "geojson", "svg")),
    (("--page", "1", "--project", "max"), ("--page", "--project")),
    (("--preset", "nucleus"), ("--preset", "'nuclei'", "'nucleus'")),
    (("--preset", "boundaries"), ("--preset", "InstanceSegmenter", "keras-rpe boundaries")),
    (("--out", "PLACE/table"), ("table/instances.csv", "not a table", "--out")),
    (("--out", "PLACE/image.png"), ("image.png", "is a file", "--out")),
]


@pytest.mark.parametrize(("options", "parts"), OPTIONS)
def test_an_option(run, tiny_preset, tmp_path, options, parts):
    _rgb(tmp_path / "image.png")
    _table(tmp_path / "table")
    words = [option.replace("PLACE", str(tmp_path)) for option in options]
    defaults = ("--preset", tiny_preset, "--out", tmp_path / "out")
    outcome = run("segment", tmp_path / "image.png", *defaults, *words)
    assert_one_line_error(outcome, *parts)
    assert not (tmp_path / "out").exists()


def _labels(*shape: int) -> Write:
    return lambda path: write_labels(path, np.ones(shape, "int32"))


# Labels of the image `x.png` of 32 x 32 pixels, further options of `train`, and the message.
FOLDERS: list[tuple[str, Write, tuple[str, ...], tuple[str, ...]]] = [
    ("y.png", _labels(32, 32), (), ("x.png", "no mask", "y.png", "no image")),
    ("x.png", _labels(16, 16), (), ("x.png", "16 x 16", "32 x 32")),
    ("x.png", _rgb, (), ("x.png", "3 channels")),
    ("x.jpg", _rgb, (), ("x.jpg", "JPEG")),
    ("x.png", _labels(32, 32), (), ("one image", "--validation-split")),
    ("x.png", _labels(32, 32), ("--instances", "masks/*"), ("no image files", "--instances")),
    ("x.png", _labels(32, 32), ("--images", "photos/*"), ("no image files", "--images")),
]


@pytest.mark.parametrize(("name", "write", "options", "parts"), FOLDERS)
def test_a_folder_to_train_on(run, tmp_path, name, write, options, parts):
    folder = tmp_path / "labelled"
    for part in ("images", "instances"):
        (folder / part).mkdir(parents=True)
    _rgb(folder / "images" / "x.png")
    write(folder / "instances" / name)
    outcome = run("train", folder, "--out", tmp_path / "run", *options)
    assert_one_line_error(outcome, str(folder), *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"zz\n", ("--names", "'zz'", "4 images")),
        (b"", ("--names", "names.txt", "at least one")),
        (b"\xff\xfe\x00", ("--names", "names.txt", "text")),
    ],
)
def test_a_list_of_names(run, labelled, tiny_preset, tmp_path, content, parts):
    names = tmp_path / "names.txt"
    names.write_bytes(content)
    outcome = run("evaluate", labelled, "--preset", tiny_preset, "--names", names)
    assert_one_line_error(outcome, *parts)
