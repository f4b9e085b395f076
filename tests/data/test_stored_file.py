from __future__ import annotations

from pathlib import Path

import pytest

from keras_rpe.data import ImageFileError
from keras_rpe.data import archives as stored_file
from keras_rpe.data.archives import StoredFile


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "a.bin").write_bytes(bytes(range(100)))
    return tmp_path / "a.bin"


def test_whole_file_and_part_of_one(path):
    assert StoredFile(path).read() == bytes(range(100))
    part = StoredFile(path, "inner.txt", 10, 5)
    assert part.read() == bytes(range(10, 15))
    assert str(part) == f"inner.txt in {path}"
    with part.open() as file:
        file.seek(2)
        assert file.read(99) == bytes([12, 13, 14])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: StoredFile(path.parent), "is a folder"),
        (lambda path: StoredFile(path.parent / "none"), "none does not exist"),
        (lambda path: StoredFile(path.parent / "a\0b"), "cannot be opened: embedded null"),
        (lambda path: StoredFile(path, "x", 90, 11), "cut short: 10 of 11 bytes"),
        (lambda path: StoredFile(path, "x", 500, 11), "x in .* is cut short"),
        (lambda path: StoredFile(path, "x", 5, 0), "is empty"),
        (lambda path: StoredFile(path, "x", 0, 2**40), "more than the"),
    ],
)
def test_what_cannot_be_read(path, make, words):
    with pytest.raises(ImageFileError, match=words) as caught:
        make(path).read()
    assert "\n" not in str(caught.value)


def test_large_file_is_refused(path, monkeypatch):
    monkeypatch.setattr(stored_file, "MAX_FILE_BYTES", 99)
    with pytest.raises(ImageFileError, match="has 100 bytes, more than the 99"):
        StoredFile(path).read()
