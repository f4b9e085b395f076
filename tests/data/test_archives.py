from __future__ import annotations

import re
import tarfile
import zlib

import numpy as np
import pytest
from bsds500_files import tar_file
from PIL import Image
from voc_layout import save_palette

from keras_rpe.data import ImageFileError, archives, write_labels
from keras_rpe.data.archives import StoredFile, open_image, read_photo, tar_index

WANTED = re.compile(r"voc/[\w-]+\.txt", re.ASCII)
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def test_parts_of_files(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(100)))
    assert StoredFile(path).read() == bytes(range(100))
    part = StoredFile(path, "inner.txt", 10, 5)
    assert part.read() == bytes(range(10, 15))
    assert str(part) == f"inner.txt in {path}"
    for file, words in [
        (StoredFile(tmp_path), "cannot be read"),
        (StoredFile(tmp_path / "none"), "none does not exist"),
        (StoredFile(tmp_path / "a\0b"), "cannot be read: embedded null"),
        (StoredFile(path, "x", 90, 11), "x in .* is cut short: 10 of 11 bytes"),
        (StoredFile(path, "x", 5, 0), "is empty"),
        (StoredFile(path, "x", 0, 2**40), "more than the"),
    ]:
        with pytest.raises(ImageFileError, match=words) as caught:
            file.read()
        assert "\n" not in str(caught.value)


def test_images_are_read_inside_other_files(tmp_path):
    indices = np.arange(120, dtype=np.uint8).reshape(10, 12) * 2
    save_palette(tmp_path / "a.png", indices)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "all").write_bytes(b"before" + content + b"after")
    file = StoredFile(tmp_path / "all", "a.png", 6, len(content))
    with open_image(file, "P") as image:
        np.testing.assert_array_equal(np.asarray(image), indices)
    colors = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    np.testing.assert_array_equal(read_photo(file), colors)
    Image.new("L", (9, 8), 7).save(tmp_path / "gray.jpg")
    assert read_photo(StoredFile(tmp_path / "gray.jpg")).shape == (8, 9, 3)


def test_wrong_kinds(tmp_path):
    write_labels(tmp_path / "gray.png", np.zeros((9, 9), int))
    Image.new("P", (9, 9)).save(tmp_path / "palette.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.jpg")
    Image.new("RGB", (9, 4)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no image")
    for name, mode, words in [
        ("gray.png", "P", "not a PNG with a palette"),
        ("photo.jpg", "P", "JPEG .* not a PNG with a palette"),
        ("palette.png", "RGB", "of the mode P, not a PNG of three channels"),
        ("small.png", None, "4 x 9 pixels"),
        ("text.png", None, "is not a PNG or JPEG image"),
    ]:
        file = StoredFile(tmp_path / name)
        with pytest.raises(ImageFileError, match=words) as caught, open_image(file, mode):
            pass
        assert name in str(caught.value)


def test_claimed_size_is_checked_first(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (30000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageFileError, match="900000000 pixels|pixels, more than"):
        read_photo(StoredFile(tmp_path / "a.png"))


def test_images_cut_short(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    for path in (tmp_path / "a.png", tmp_path / "a.jpg"):
        Image.fromarray(noise).save(path)
        data = path.read_bytes()
        for share in (0.05, 0.3, 0.7):
            path.write_bytes(data[: int(share * len(data))])
            with pytest.raises(ImageFileError, match="cannot be read|is not a PNG"):
                read_photo(StoredFile(path))


@pytest.mark.parametrize("form", FORMATS)
def test_wanted_files_are_found_where_they_lie(tmp_path, form):
    contents = {f"voc/{number:03d}.txt": bytes([number]) * number for number in range(1, 40)}
    others = [("voc/sub/a.txt", b"no"), ("README", b"no")]
    archive = tar_file(tmp_path / "a.tar", [*contents.items(), *others], form=form)
    found = tar_index(archive, WANTED)
    assert {name: file.read() for name, file in found.items()} == contents


def test_links_and_other_places_are_passed_over(tmp_path):
    kinds = {"e": tarfile.SYMTYPE, "f": tarfile.LNKTYPE, "g": tarfile.DIRTYPE}
    links = [(f"voc/{name}.txt", "voc/a.txt", kind) for name, kind in kinds.items()]
    outside = [(name, b"evil") for name in ("../voc/b.txt", "/voc/c.txt", "voc/../voc/d.txt")]
    archive = tar_file(tmp_path / "a.tar", [("./voc/a.txt", b"one"), *outside], links)
    assert list(tar_index(archive, WANTED)) == ["voc/a.txt"]


def test_archive_cut_short_anywhere(tmp_path):
    archive = tar_file(
        tmp_path / "a.tar", [(f"voc/{number}.txt", b"x" * 700) for number in range(4)]
    )
    data = archive.read_bytes()
    with tarfile.open(archive) as tar:
        tar.getmembers()
        end = tar.offset  # where the end mark starts
    for length in range(0, end + 512, 128):
        archive.write_bytes(data[:length])
        with pytest.raises(ImageFileError, match=r"a\.tar cannot be read as a tar") as caught:
            tar_index(archive, WANTED)
        assert "\n" not in str(caught.value)
    archive.write_bytes(data[: end + 512])
    assert len(tar_index(archive, WANTED)) == 4


def test_damaged_bytes_give_a_sentence_or_files_inside(tmp_path):
    archive = tar_file(
        tmp_path / "a.tar", [(f"voc/{number}.txt", b"x" * 600) for number in range(5)]
    )
    data = archive.read_bytes()
    refused = 0
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        archive.write_bytes(damaged)
        try:
            for file in tar_index(archive, WANTED).values():
                assert file.offset + file.size <= len(data)
        except ImageFileError:
            refused += 1
    assert refused > 10


def test_archives_that_are_refused(tmp_path, monkeypatch):
    archive = tmp_path / "a.tar"
    with pytest.raises(ImageFileError, match="No such file"):
        tar_index(archive, WANTED)
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("voc/a.txt"))
    with pytest.raises(ImageFileError, match="as a tar archive without compression"):
        tar_index(archive, WANTED)
    tar_file(archive, [("voc/a.txt", b"1"), ("./voc/a.txt", b"2")])
    with pytest.raises(ImageFileError, match=r"holds voc/a\.txt twice"):
        tar_index(archive, WANTED)
    monkeypatch.setattr(archives, "MAX_ENTRIES", 1)
    with pytest.raises(ImageFileError, match="more than 1 entries"):
        tar_index(archive, WANTED)
