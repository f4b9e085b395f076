from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from digit_sources import blocks

from keras_rpe.data import ImageFileError
from keras_rpe.data.digits import read_digit_file


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def write(path, method=zipfile.ZIP_DEFLATED, **members: bytes):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_both_layouts_are_read(tmp_path, save, order):
    x, y = blocks()
    x = np.array(x, order=order)
    save(tmp_path / "plain.npz", x=x, y=y, more=np.array([{}], dtype=object))
    save(tmp_path / "keras.npz", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:])
    for name, split, part, of_split in (
        ("plain", "train", slice(None), False),
        ("plain", "test", slice(None), False),
        ("keras", "train", slice(100), True),
        ("keras", "test", slice(100, None), True),
    ):
        images, labels, found = read_digit_file(tmp_path / f"{name}.npz", split)
        np.testing.assert_array_equal(images, x[part])
        np.testing.assert_array_equal(labels, y[part])
        assert found == of_split


X, Y = blocks()
GOOD = {"x": npy(X), "y": npy(Y)}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"x_train": npy(X), "y_train": npy(Y)}, "neither x_test and y_test nor x and y, but 'x_t"),
        ({"x": npy(X)}, "neither x_test and y_test nor x and y, but 'x'"),
        ({}, "neither x_test and y_test nor x and y, but no array"),
        (
            GOOD | {"x": npy(np.array([{}], dtype=object), allow_pickle=True)},
            "its array x is pickled, and nothing is unpickled here",
        ),
        (GOOD | {"x": npy(X.astype(np.float32))}, "its array x is of float32, not of uint8"),
        (GOOD | {"x": npy(X.astype(np.uint16))}, "its array x is of uint16, not of uint8"),
        (GOOD | {"y": npy(Y / 1.0)}, "its array y is of float64, not of whole numbers"),
        (GOOD | {"y": npy(np.array(["a"]))}, "its array y is of <U1, not of whole numbers"),
        (GOOD | {"x": npy(X[:, :27])}, r"its array x has the shape \(140, 27, 28\), not \(N, 28,"),
        (GOOD | {"x": npy(X[..., None])}, r"its array x has the shape \(140, 28, 28, 1\), not"),
        (GOOD | {"x": npy(X[:0])}, r"its array x has the shape \(0, 28, 28\), not .* N from 1"),
        (GOOD | {"y": npy(Y[:, None])}, r"its array y has the shape \(140, 1\), not \(N,\)"),
        (GOOD | {"x": npy(X)[:-1]}, "its array x is not as long as its header says"),
        (GOOD | {"x": npy(X) + b"\0"}, "its array x is not as long as its header says"),
        (GOOD | {"y": npy(Y, version=(3, 0))}, "its arrays are of version 3.0, not 1.0 or 2.0"),
        (GOOD | {"y": b"nothing"}, "it is damaged"),
        (GOOD | {"y": npy(Y).replace(b"{", b"(")}, "it is damaged"),
        (GOOD | {"y": npy(Y).replace(b"(140,),", b"(-14,),")}, "has the shape"),
    ],
)
def test_members_are_checked(tmp_path, members, reason):
    path = write(tmp_path / "digits.npz", **members)
    with pytest.raises(
        ImageFileError, match=rf"digits\.npz cannot be read as an \.npz file: .*{reason}.*\.$"
    ) as caught:
        read_digit_file(path, "test")
    assert "\n" not in str(caught.value)


def test_sizes_are_compared_before_memory_is_taken(tmp_path):
    claim = npy(X).replace(b"(140, 28, 28), }  ", b"(999999, 28, 28), }")
    path = write(tmp_path / "digits.npz", **GOOD | {"x": claim})
    with pytest.raises(ImageFileError, match="it declares more than the 64 MiB of data"):
        read_digit_file(path, "train")


def test_files_are_checked(tmp_path):
    with pytest.raises(ImageFileError, match=r"none\.npz does not exist\.$"):
        read_digit_file(tmp_path / "none.npz", "train")
    with pytest.raises(ImageFileError, match=r"is a folder, not an \.npz file\.$"):
        read_digit_file(tmp_path, "train")
    for content in (b"", b"PK\x03\x04", npy(X)):
        (tmp_path / "other.npz").write_bytes(content)
        with pytest.raises(ImageFileError, match=r"other\.npz cannot be read as .*: it is damaged"):
            read_digit_file(tmp_path / "other.npz", "train")
    path = write(tmp_path / "digits.npz", **GOOD | {"y": npy(Y[:-1])})
    with pytest.raises(ImageFileError, match="has 140 images in x, but 139 labels in y"):
        read_digit_file(path, "train")
    path = write(tmp_path / "packed.npz", zipfile.ZIP_BZIP2, **GOOD)
    with pytest.raises(ImageFileError, match="its array x is encrypted, or compressed in an unkn"):
        read_digit_file(path, "train")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_gives_the_arrays_or_an_error(tmp_path, method):
    whole = write(tmp_path / "digits.npz", method, **GOOD).read_bytes()
    path = tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    places = [place for name in (b"x.npy", b"y.npy", b"\x93NUMPY") for place in _all(whole, name)]
    refused = 0
    for trial in range(300):
        damaged = bytearray(whole)
        # Most of the file is pixels; the names of members are amid the bytes that steer.
        near = max(0, int(rng.choice(places)) - 60)
        for at in rng.integers(near, min(near + 250, len(whole)), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        if trial % 10 == 0:
            del damaged[rng.integers(len(whole)) :]
        path.write_bytes(damaged)
        try:
            x, y, _ = read_digit_file(path, "train")
        except ImageFileError:
            refused += 1
        else:
            np.testing.assert_array_equal(x, X)
            np.testing.assert_array_equal(y, Y)
    assert 150 < refused < 300


def _all(content: bytes, part: bytes) -> list[int]:
    return [at for at in range(len(content)) if content.startswith(part, at)]
