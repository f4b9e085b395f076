import pickle
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.data import ImageFileError
from keras_rpe.large import LargeImage
from keras_rpe.layers import ImageNormalization

PIXELS = np.random.default_rng(0).integers(0, 4000, (2, 40, 50)).astype("uint16")
PART = slice(5, 17), slice(8, 44)


def ome_zarr(path: Path, axes: str, levels: list[tuple[int, ...]]) -> Path:
    group = zarr.open_group(path, mode="w")
    scale = [0.5 if axis in "yx" else 1.0 for axis in axes]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": axis, "unit": "micrometer"} for axis in axes],
                "datasets": [
                    {
                        "path": str(k),
                        "coordinateTransformations": [{"type": "scale", "scale": scale}],
                    }
                    for k in range(len(levels))
                ],
            }
        ],
    }
    for k, shape in enumerate(levels):
        group.create_array(
            str(k), shape=shape, dtype="uint16", chunks=tuple(min(n, 16) for n in shape)
        )
        group[str(k)][...] = PIXELS.reshape(shape) if k == 0 else 0
    return path


def sources(folder: Path) -> dict[str, object]:
    np.save(folder / "a.npy", PIXELS)
    tifffile.imwrite(folder / "a.tif", PIXELS, tile=(16, 16), metadata={"axes": "CYX"})
    zarr.save_array(folder / "a.zarr", PIXELS)
    return {
        "array": PIXELS,
        "memmap": np.load(folder / "a.npy", mmap_mode="r"),
        "dask": da.from_array(PIXELS, chunks=(1, 16, 16)),
        "npy": folder / "a.npy",
        "tiff": folder / "a.tif",
        "zarr": str(folder / "a.zarr"),
        "ome": ome_zarr(folder / "b.zarr", "tczyx", [(1, 2, 1, 40, 50), (1, 2, 1, 20, 25)]),
    }


@pytest.mark.parametrize("kind", ["array", "memmap", "dask", "npy", "tiff", "zarr", "ome"])
def test_parts_of_a_channel(tmp_path, kind):
    image = LargeImage(sources(tmp_path)[kind], channel=2)
    assert (image.shape, image.dtype) == ((40, 50), np.uint16)
    for one in (image, pickle.loads(pickle.dumps(image))):
        np.testing.assert_array_equal(one.read(*PART), PIXELS[1][PART])
    assert image.pixel_size == (0.5 if kind == "ome" else None)


def test_colors_come_last():
    color = np.random.default_rng(0).integers(0, 255, (3, 40, 50)).astype("uint8")
    np.testing.assert_array_equal(LargeImage(color).read(*PART), color.transpose(1, 2, 0)[PART])
    one = LargeImage(color.reshape(3, 40, 50, 1), axes="CYXT")
    np.testing.assert_array_equal(one.read(*PART), color.transpose(1, 2, 0)[PART])


def truncated_chunk(folder: Path) -> object:
    ome_zarr(folder / "c.zarr", "yx", [(80, 50)])
    for file in (folder / "c.zarr" / "0").rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(file.read_bytes()[:20])
    return folder / "c.zarr"


def group_without_image(folder: Path) -> object:
    zarr.open_group(folder / "n.zarr", mode="w")
    return folder / "n.zarr"


def empty_tiff(folder: Path) -> object:
    (folder / "empty.tif").touch()
    return folder / "empty.tif"


WRONG = {
    "two channels": (lambda folder: PIXELS, {}, ["2 channels", "channel"]),
    "channel 3": (lambda folder: PIXELS, {"channel": 3}, ["2 channels", "channel=3"]),
    "no axes": (lambda folder: np.zeros((9, 40, 50)), {}, ["(9, 40, 50)", "axes"]),
    "axes": (lambda folder: PIXELS, {"axes": "ZCYX"}, ["(2, 40, 50)", "ZCYX"]),
    "planes": (
        lambda folder: ome_zarr(folder / "z.zarr", "zyx", [(2, 40, 50)]),
        {},
        ["z.zarr", "axis Z", "2"],
    ),
    "times": (
        lambda folder: ome_zarr(folder / "t.zarr", "tyx", [(2, 40, 50)]),
        {},
        ["t.zarr", "axis T", "2"],
    ),
    "pyramid": (
        lambda folder: ome_zarr(folder / "p.zarr", "yx", [(80, 50), (40, 60)]),
        {},
        ["p.zarr", "level 1", "(40, 60)"],
    ),
    "no image": (group_without_image, {}, ["n.zarr", "multiscales"]),
    "missing": (lambda folder: folder / "m.tif", {}, ["m.tif", "exist"]),
    "0 bytes": (empty_tiff, {}, ["empty.tif"]),
    "text": (lambda folder: np.array([["a"]]), {}, ["numbers"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_image(tmp_path, name):
    make, options, parts = WRONG[name]
    with pytest.raises(ImageFileError) as caught:
        LargeImage(make(tmp_path), **options)
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize("kind", ["chunk", "nan"])
def test_a_part_that_cannot_be_read(tmp_path, kind):
    image = LargeImage(truncated_chunk(tmp_path) if kind == "chunk" else np.full((40, 50), np.nan))
    with pytest.raises(ImageFileError, match="rows 5 to 17"):
        image.read(*PART)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"]),
    st.sampled_from([(7, 9), (7, 9, 3), (7, 9, 4)]),
    st.lists(st.floats(0, 100), min_size=1, max_size=3),
)
def test_percentiles_are_those_of_the_whole_image(seed, dtype, shape, percents):
    random = np.random.default_rng(seed)
    image = (random.normal(0, 90, shape) * (1 if dtype[0] in "fi" else 0) + 100).astype(dtype)
    image = image if dtype[0] != "u" else random.integers(0, 200, shape).astype(dtype)
    gray = image.astype("float32")
    gray = gray[..., :3].mean(-1, dtype="float32") if gray.ndim == 3 else gray
    ordered = np.sort(gray.ravel())
    ranks = [int((ordered.size - 1) * percent / 100 + 0.5) for percent in percents]
    found = LargeImage(image).percentiles(percents, side=4)
    assert found == ordered[ranks].tolist()


@pytest.mark.parametrize("shape", [(300, 4100), (2100, 250, 3)])
def test_percentiles_of_many_pixels_are_those_of_the_graph(shape):
    image = np.random.default_rng(3).gamma(2.0, 40.0, shape).astype("float32")
    found = LargeImage(image).percentiles([1, 99.8], side=640)
    pixels = image.reshape(1, *shape[:2], -1)
    layer = ImageNormalization(1, 99.8)
    np.testing.assert_array_equal(layer(pixels), layer(pixels, np.array([found], "float32")))
    gray = image if image.ndim == 2 else image.mean(axis=-1)
    shares = [(gray < value).mean() for value in found]
    np.testing.assert_allclose(shares, [0.01, 0.998], atol=1e-3)
