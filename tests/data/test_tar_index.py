from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from keras_rpe.data import ImageFileError
from keras_rpe.data import archives as tar_index
from keras_rpe.data.archives import tar_index as index

WANTED = re.compile(r"voc/[\w-]+\.txt", re.ASCII)
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def pack(path: Path, entries: list[tuple[str, bytes] | tarfile.TarInfo], form: int = 1) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            tar.addfile(info, io.BytesIO(entry[1]))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def archive(tmp_path) -> Path:
    return tmp_path / "a.tar"


@pytest.mark.parametrize("form", FORMATS)
def test_wanted_files_are_found_where_they_lie(archive, form):
    contents = {f"voc/{number:03d}.txt": bytes([number]) * number for number in range(1, 40)}
    pack(archive, [*contents.items(), ("voc/sub/a.txt", b"no"), ("README", b"no")], form)
    found = index(archive, WANTED)
    assert {name: file.read() for name, file in found.items()} == contents


def test_links_and_other_places_are_passed_over(archive, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"secret")
    pack(
        archive,
        [
            ("./voc/a.txt", b"one"),
            ("../voc/b.txt", b"evil"),
            ("/voc/c.txt", b"evil"),
            ("voc/../voc/d.txt", b"evil"),
            link("voc/e.txt", str(secret), tarfile.SYMTYPE),
            link("voc/f.txt", "voc/a.txt", tarfile.LNKTYPE),
            link("voc/g.txt", "", tarfile.DIRTYPE),
        ],
    )
    assert list(index(archive, WANTED)) == ["voc/a.txt"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tar", "secret.txt"]


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_anywhere(archive, form):
    pack(archive, [(f"voc/{number}.txt", b"x" * 700) for number in range(4)], form)
    data = archive.read_bytes()
    with tarfile.open(archive) as tar:
        tar.getmembers()
        end = tar.offset  # where the end mark starts
    for length in range(0, end + 512, 128):
        archive.write_bytes(data[:length])
        with pytest.raises(ImageFileError, match=r"a\.tar cannot be read as a tar") as caught:
            index(archive, WANTED)
        assert "\n" not in str(caught.value)
    archive.write_bytes(data[: end + 512])
    assert len(index(archive, WANTED)) == 4


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_bytes_give_a_sentence_or_files_inside(archive, form):
    pack(archive, [(f"voc/{number}.txt", b"x" * 600) for number in range(5)], form)
    data = archive.read_bytes()
    refused = 0
    rng = np.random.default_rng(form)
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        archive.write_bytes(damaged)
        try:
            for file in index(archive, WANTED).values():
                assert file.offset + file.size <= len(data)
        except ImageFileError:
            refused += 1
    assert refused > 20


def test_compressed_twice_or_missing(archive, tmp_path, monkeypatch):
    with pytest.raises(ImageFileError, match="does not exist, or is no file"):
        index(archive, WANTED)
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("voc/a.txt"))
    with pytest.raises(ImageFileError, match="as a tar archive without compression"):
        index(archive, WANTED)
    pack(archive, [("voc/a.txt", b"1"), ("./voc/a.txt", b"2")])
    with pytest.raises(ImageFileError, match=r"holds voc/a\.txt twice"):
        index(archive, WANTED)
    monkeypatch.setattr(tar_index, "MAX_ENTRIES", 1)
    pack(archive, [("voc/a.txt", b"1"), ("voc/b.txt", b"2")])
    with pytest.raises(ImageFileError, match="more than 1 entries"):
        index(archive, WANTED)
