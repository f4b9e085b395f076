import struct
import zlib
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_rpe.data import (
    ImageFileError,
    find_images,
    read_image,
    read_labels,
    write_image,
    write_labels,
)

RNG = np.random.default_rng(0)


def random_values(dtype: str, *shape: int) -> np.ndarray:
    if dtype == "float32":
        return RNG.normal(size=shape).astype("float32")
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def fails(reader, path: Path, *words: str) -> None:
    with pytest.raises(ImageFileError) as caught:
        reader(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    for word in words:
        assert word in message


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(height: int, width: int, bits: int, color: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 1), (9, 12, 3), (9, 12, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_values_are_kept(tmp_path, shape, dtype):
    image = random_values(dtype, *shape)
    photometric = "rgb" if shape[2:] > (1,) else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", image, photometric=photometric)
    image = image[..., 0] if shape[2:] == (1,) else image
    names = ["a.tif"]
    if dtype == "uint8" or (dtype == "uint16" and image.ndim == 2):
        Image.fromarray(image).save(tmp_path / "a.png")
        Image.fromarray(image).save(tmp_path / "b.tif", compression="tiff_lzw")
        names += ["a.png", "b.tif"]
    for name in names:
        read = read_image(tmp_path / name)
        np.testing.assert_array_equal(read, image, strict=True)


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_png_keeps_sixteen_bits_of_several_channels(tmp_path, color, channels):
    image = random_values("uint16", 9, 12, channels)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    (tmp_path / "a.png").write_bytes(raw_png(9, 12, 16, color, rows))
    wanted = image if channels > 2 else image[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), wanted, strict=True)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("axes", [None, "CYX"])
def test_channels_of_a_tiff_come_last(tmp_path, channels, axes):
    image = random_values("uint8", channels, 9, 12)
    options = {"photometric": "rgb", "planarconfig": "separate"}
    if axes:  # a page for each
        options = {"photometric": "minisblack", "metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.moveaxis(image, 0, -1))


def test_other_modes_of_a_png(tmp_path):
    indices = np.arange(108, dtype="uint8").reshape(9, 12) % 3
    colors = np.array([[255, 0, 0], [0, 255, 0], [1, 2, 3]])
    palette = Image.fromarray(indices, "P")
    palette.putpalette(colors.ravel().tolist())
    bits, pair = RNG.random((9, 12)) < 0.5, random_values("uint8", 9, 12, 2)
    for image, wanted in (
        (palette, colors[indices]),
        (Image.fromarray(bits), bits * 255),
        (Image.fromarray(pair, "LA"), pair[..., [0, 0, 0, 1]]),
    ):
        image.save(tmp_path / "a.png")
        read = read_image(tmp_path / "a.png")
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, wanted)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_has_no_other_shape_and_is_not_turned(tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new(mode, (12, 9)).save(tmp_path / "a.jpg", exif=exif)
    read = read_image(tmp_path / "a.jpg")
    assert read.shape == ((9, 12) if mode == "L" else (9, 12, 3))
    assert read.dtype == np.uint8


@pytest.mark.parametrize("reader", [read_image, read_labels])
def test_files_that_are_no_images(tmp_path, reader):
    fails(reader, tmp_path / "missing.png", "does not exist")
    fails(reader, tmp_path, "folder")
    (tmp_path / "empty.png").touch()
    fails(reader, tmp_path / "empty.png", "0 bytes")
    (tmp_path / "text.png").write_text("not an image")
    fails(reader, tmp_path / "text.png", "not a PNG, JPEG or TIFF")
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + bytes(20))
    fails(reader, tmp_path / "broken.tif")


def test_small_images_and_those_with_nan_are_errors(tmp_path):
    for name, shape in (("a.png", (7, 12)), ("a.tif", (12, 7))):
        Image.fromarray(np.zeros(shape, "uint8")).save(tmp_path / name)
        fails(read_image, tmp_path / name, f"{shape[0]} x {shape[1]}")
    tifffile.imwrite(tmp_path / "b.tif", np.where(np.eye(9), np.nan, 0).astype("float32"))
    fails(read_image, tmp_path / "b.tif", "NaN")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_file_cut_anywhere_is_an_error(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(random_values("uint8", 24, 24, 3)).save(path)
    assert read_image(path).shape == (24, 24, 3)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), *range(len(whole) - 15, len(whole))]:
        path.write_bytes(whole[:length])
        fails(read_image, path)


def test_several_images_in_one_file_are_errors(tmp_path):
    stack = random_values("uint8", 3, 9, 12)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    fails(read_image, tmp_path / "a.tif")
    fails(read_labels, tmp_path / "a.tif")
    frames = [Image.fromarray(random_values("uint8", 9, 12)) for _ in range(2)]
    for name in ("a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        fails(read_image, tmp_path / name, "2 images")


def test_claim_of_too_many_pixels_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(raw_png(2**15, 2**15, 8, 0, b""))
    fails(read_image, tmp_path / "a.png", "pixels")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 12), "uint8"))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(2**15)
        file.pages[0].tags["ImageDescription"].overwrite("plain")
    fails(read_image, tmp_path / "a.tif", "32768 x 32768", str(2**28))


@settings(max_examples=25, deadline=None)
@given(
    labels=hnp.arrays(
        "int64", hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 65535)
    ),
    suffix=st.sampled_from([".png", ".tif", ".tiff", ".PNG"]),
)
def test_labels_round_trip(tmp_path_factory, labels, suffix):
    path = tmp_path_factory.mktemp("labels") / f"a{suffix}"
    write_labels(path, labels)
    read = read_labels(path)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, labels)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_large_ids_go_into_a_32_bit_tiff(tmp_path):
    labels = np.array([[0, 65536], [2**31 - 1, 3]])
    write_labels(tmp_path / "a.tif", labels)
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint32
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), labels)
    write_labels(tmp_path / "a.tif", labels[:1, :1])
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint16


def test_palette_and_one_bit_labels_give_indices(tmp_path):
    indices = np.arange(108, dtype="uint8").reshape(9, 12) % 21
    palette = Image.fromarray(indices, "P")
    palette.putpalette(RNG.integers(0, 256, 768).tolist())
    palette.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), indices)
    Image.fromarray(indices > 9).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "b.png"), indices > 9)


def test_bad_labels_are_errors(tmp_path):
    for name, values, words in [
        ("negative.tif", np.array([[0, -3]], "int16"), "negative"),
        ("float.tif", np.array([[0, 1]], "float32"), "float32"),
        ("large.tif", np.array([[0, 2**31]], "uint32"), "2**31 - 1"),
    ]:
        tifffile.imwrite(tmp_path / name, values)
        fails(read_labels, tmp_path / name, words)
    Image.new("RGB", (12, 9)).save(tmp_path / "rgb.png")
    fails(read_labels, tmp_path / "rgb.png", "3 channels")
    Image.new("L", (12, 9)).save(tmp_path / "a.jpg")
    fails(read_labels, tmp_path / "a.jpg", "JPEG")


def test_bad_arguments_of_write_labels(tmp_path):
    good = np.zeros((2, 2), int)
    for path, labels, words in [
        ("a.png", good + 65536, r"65536.*a\.tif"),
        ("a.bmp", good, r"\.png, \.tif or \.tiff"),
        ("a.png", good - 1, "from -1 to -1"),
        ("a.tif", good + 2**31, r"2\*\*31 - 1"),
        ("a.png", good[0], r"\(H, W\)"),
        ("a.png", good.astype(float), "float64"),
        ("a.png", good[:0], r"\(0, 2\)"),
    ]:
        with pytest.raises(ImageFileError, match=words):
            write_labels(tmp_path / path, labels)
    assert list(tmp_path.iterdir()) == []


def test_write_image(tmp_path):
    rgb = random_values("uint8", 9, 12, 3)
    write_image(tmp_path / "a.png", rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)
    for path, image, words in [
        ("b.jpg", rgb, r"\.png"),
        ("b.png", rgb[..., 0], r"\(9, 12\)"),
        ("b.png", rgb.astype("float32"), "float32"),
    ]:
        with pytest.raises(ImageFileError, match=words):
            write_image(tmp_path / path, image)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.tif", "c.jpeg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "d.png").touch()
    (tmp_path / "folder.png").mkdir()
    assert [file.name for file in find_images(tmp_path)] == ["a.tif", "b.PNG", "c.jpeg"]
    assert find_images(str(tmp_path / "b.PNG")) == [tmp_path / "b.PNG"]
    assert find_images(f"{tmp_path}/*.tif") == [tmp_path / "a.tif"]
    assert [file.name for file in find_images(f"{tmp_path}/inner/*")] == ["d.png"]
    for path, words in [
        (tmp_path / "folder.png", "holds no image files"),
        (tmp_path / "*.bmp", "matches no image files"),
        (tmp_path / "missing", "does not exist"),
    ]:
        with pytest.raises(ImageFileError, match=words):
            find_images(path)
