from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from keras_rpe.data import ImageFileError, unpack_bsds500
from keras_rpe.data import bsds as bsds500_archive

ROOT = "BSR/BSDS500/data"


def pack(path: Path, *entries: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
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
    return tmp_path / "BSR_bsds500.tgz"


def files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_images_and_annotations_are_unpacked_and_nothing_else(archive, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    pack(
        archive,
        (f"{ROOT}/images/train/1.jpg", b"one"),
        (f"./{ROOT}/groundTruth/test/2.mat", b"two"),
        (f"{ROOT}/images/train/Thumbs.db", b"other"),
        (f"{ROOT}/images/train/../../../../../evil.jpg", b"evil"),
        (f"/{ROOT}/images/train/4.jpg", b"evil"),
        (f"{ROOT}/images/other/5.jpg", b"other"),
        (f"{ROOT}/images/val/6.mat", b"other"),
        ("../evil.jpg", b"evil"),
        link(f"{ROOT}/images/val/7.jpg", str(secret), tarfile.SYMTYPE),
        link(f"{ROOT}/images/val/8.jpg", f"{ROOT}/images/train/1.jpg", tarfile.LNKTYPE),
        link(f"{ROOT}/images/val", str(tmp_path), tarfile.SYMTYPE),
    )
    before = files(tmp_path)
    folder = unpack_bsds500(archive, tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    found = files(folder)
    assert found == {"images/train/1.jpg": b"one", "groundTruth/test/2.mat": b"two"}
    assert set(files(tmp_path)) == set(before) | {f"a/b/{name}" for name in found}


def test_limits(archive, tmp_path, monkeypatch):
    pack(archive, (f"{ROOT}/images/val/1.jpg", bytes(900)), ("BSR/README", bytes(900)))
    for name, reason in (
        ("MAX_FILE_BYTES", "1.jpg of 900 bytes, more than the 800"),
        ("MAX_BYTES", "more than 800 bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(bsds500_archive, name, 800)
            with pytest.raises(ImageFileError, match=reason):
                unpack_bsds500(archive, tmp_path / "out")
    unpack_bsds500(archive, tmp_path / "out")


def test_bad_archives_are_named(archive, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ImageFileError, match="tgz does not exist"):
        unpack_bsds500(archive, out)
    for content in (b"", b"no archive", gzip.compress(b"no tar file" * 100)):
        archive.write_bytes(content)
        with pytest.raises(ImageFileError, match="tgz (cannot be read|holds nothing)"):
            unpack_bsds500(archive, out)
    pack(archive, ("BSR/README", b"text"))
    with pytest.raises(ImageFileError, match="tgz holds nothing in BSR/BSDS500/data"):
        unpack_bsds500(archive, out)
    pack(archive, *[(f"{ROOT}/images/val/1.jpg", b"twice")] * 2)
    with pytest.raises(ImageFileError, match=r"holds .*1\.jpg twice"):
        unpack_bsds500(archive, out)


def test_damaged_archives_give_one_sentence(archive, tmp_path):
    noise = np.random.default_rng(0).bytes(20000)
    content = pack(archive, (f"{ROOT}/images/val/1.jpg", noise)).read_bytes()
    for end in range(1, len(content) - 8, 997):
        archive.write_bytes(content[:end])
        with pytest.raises(ImageFileError, match="^[^\n]*tgz cannot be read[^\n]*$"):
            unpack_bsds500(archive, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.jpg"))
    problems = []
    for place in range(12, len(content), 371):
        archive.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            unpack_bsds500(archive, tmp_path / "out")
        except ImageFileError as error:
            problems.append(str(error))
    assert len(problems) > 50
    assert not any("\n" in one for one in problems)
