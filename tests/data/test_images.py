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
    read_pixel_size,
    write_image,
    write_labels,
)
from keras_rpe.data.images import read_header

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
def test_jpeg_has_no_other_shape_and_is_turned(tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new(mode, (12, 9)).save(tmp_path / "a.jpg", exif=exif)
    read = read_image(tmp_path / "a.jpg")
    assert read.shape == ((12, 9) if mode == "L" else (12, 9, 3))
    header = read_header(tmp_path / "a.jpg")
    assert (header.height, header.width) == (12, 9)
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


STACK = random_values("uint16", 4, 2, 9, 12)  # planes, channels, rows, columns


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ("ZCYX", {"imagej": True}),
        ("ZCYX", {"ome": True}),
        ("CZYX", {"ome": True}),
        ("ZYXS", {"metadata": {"axes": "ZYXS"}, "planarconfig": "contig"}),
    ],
)
def test_pages_and_channels_are_chosen(tmp_path, axes, options):
    order = ["ZCYX".index(axis) for axis in axes.replace("S", "C")]
    metadata = {"metadata": {"axes": axes}}
    pixels = np.ascontiguousarray(STACK.transpose(order))
    tifffile.imwrite(
        tmp_path / "a.ome.tif" if "ome" in options else tmp_path / "a.tif",
        pixels,
        photometric="minisblack",
        **(metadata | options),
    )
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(read_image(path, channel=2, page=3), STACK[2, 1])
    np.testing.assert_array_equal(read_image(path, channel=1, project="max"), STACK[:, 0].max(0))
    mean = read_image(path, channel=1, project="mean")
    assert np.abs(mean - STACK[:, 0].mean(0)).max() <= 0.5
    for words, chosen in (
        (["4 images", "page", "project"], {}),
        (["2 channels", "channel"], {"page": 1}),
        (["4 pages", "page=5"], {"page": 5, "channel": 1}),
        (["2 channels", "channel=3"], {"page": 1, "channel": 3}),
    ):
        with pytest.raises(ImageFileError) as caught:
            read_image(path, **chosen)
        assert all(word in str(caught.value) for word in [path.name, *words])


def test_channels_without_metadata(tmp_path):
    last = np.moveaxis(STACK[0], 0, -1)
    tifffile.imwrite(tmp_path / "last.tif", last, photometric="minisblack")
    tifffile.imwrite(tmp_path / "first.tif", STACK[0], photometric="minisblack")
    for name in ("last.tif", "first.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name, channel=2), STACK[0, 1])
    fails(read_image, tmp_path / "last.tif", "2 channels", "`channel`")
    fails(read_image, tmp_path / "first.tif", "2 images", "`page`")
    planes = {"axes": "ZYX"}
    tifffile.imwrite(tmp_path / "z.tif", STACK[0], photometric="minisblack", metadata=planes)
    with pytest.raises(ImageFileError, match="2 images"):
        read_image(tmp_path / "z.tif", channel=2)


def test_images_of_different_sizes_in_one_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for side in (9, 12):
            file.write(np.zeros((side, side), "uint8"), photometric="minisblack")
    fails(read_image, tmp_path / "a.tif", "2 images", "size")


def test_one_channel_of_a_photograph(tmp_path):
    image = random_values("uint8", 9, 12, 3)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channel=3), image[..., 2])


@pytest.mark.parametrize("ending", ["bmp", "webp", "gif"])
def test_other_formats(tmp_path, ending):
    image = random_values("uint8", 9, 12)
    lossless = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(image).save(tmp_path / f"a.{ending}", **lossless)
    read = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read[..., 0] if read.ndim == 3 else read, image)
    assert find_images(tmp_path) == [tmp_path / f"a.{ending}"]
    fails(read_labels, tmp_path / f"a.{ending}", "store labels as")


def test_frames_of_an_animation(tmp_path):
    frames = [Image.fromarray(np.full((9, 12), value, "uint8")) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    fails(read_image, tmp_path / "a.gif", "2 images")
    assert read_image(tmp_path / "a.gif", page=2).max() == 200
    assert read_image(tmp_path / "a.gif", project="mean").max() == 105


def test_zstd_is_read(tmp_path):
    image = random_values("uint8", 9, 12)
    Image.fromarray(image).save(tmp_path / "a.tif", compression="zstd")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


def test_pixel_sizes(tmp_path):
    image = np.zeros((9, 12), "uint8")
    ome = {"PhysicalSizeX": 325, "PhysicalSizeXUnit": "nm"}
    for name, options, wanted in (
        ("ome.ome.tif", {"metadata": {"axes": "YX", **ome}}, 0.325),
        ("imagej.tif", {"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
        ("cm.tif", {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}, 0.5),
        ("fine.tif", {"resolution": (25400, 25400), "resolutionunit": "INCH"}, 1.0),
        ("print.tif", {"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ("none.tif", {}, None),
    ):
        tifffile.imwrite(tmp_path / name, image, **options)
        assert read_pixel_size(tmp_path / name) == (wanted and pytest.approx(wanted)), name
    write_labels(tmp_path / "labels.tif", image, pixel_size=0.65)
    assert read_pixel_size(tmp_path / "labels.tif") == pytest.approx(0.65)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert read_pixel_size(tmp_path / "a.png") is None


@pytest.mark.parametrize(
    "chosen", [{"channel": 0}, {"page": 1.5}, {"project": "sum"}, {"page": 1, "project": "max"}]
)
def test_wrong_choices(tmp_path, chosen):
    Image.new("L", (12, 9)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"`{next(iter(chosen))}`") as caught:
        read_image(tmp_path / "a.png", **chosen)
    assert not isinstance(caught.value, ImageFileError)


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
