from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from voc_layout import save_palette

from keras_rpe.data import ImageFileError, write_image, write_labels
from keras_rpe.data.archives import (
    StoredFile,
    read_color_ids,
    read_palette_labels,
    read_photo,
    read_stored_header,
)


def test_images_are_read_inside_other_files(tmp_path):
    indices = np.arange(120, dtype=np.uint8).reshape(10, 12) * 2
    save_palette(tmp_path / "a.png", indices)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "all").write_bytes(b"before" + content + b"after")
    file = StoredFile(tmp_path / "all", "a.png", 6, len(content))
    assert read_stored_header(file) == (10, 12, "P", "PNG")
    np.testing.assert_array_equal(read_palette_labels(file), indices)
    colors = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    np.testing.assert_array_equal(read_photo(file), colors)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_few_bits(tmp_path, bits):
    indices = np.random.default_rng(0).integers(0, 2**bits, (9, 13)).astype(np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette([1, 2, 3] * 2**bits)
    picture.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_palette_labels(StoredFile(tmp_path / "a.png")), indices)


def test_gray_photograph_has_three_channels(tmp_path):
    Image.new("L", (9, 8), 7).save(tmp_path / "a.jpg")
    assert read_photo(StoredFile(tmp_path / "a.jpg")).shape == (8, 9, 3)


def test_color_ids(tmp_path):
    ids = np.random.default_rng(0).integers(0, 2**24, (9, 8))
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1)
    write_image(tmp_path / "a.png", colors.astype(np.uint8))
    np.testing.assert_array_equal(read_color_ids(StoredFile(tmp_path / "a.png")), ids)


def test_wrong_kinds(tmp_path):
    write_labels(tmp_path / "gray.png", np.zeros((9, 9), int))
    Image.new("P", (9, 9)).save(tmp_path / "palette.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.jpg")
    Image.new("RGBA", (9, 9)).save(tmp_path / "alpha.png")
    Image.new("RGB", (9, 4)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no image")
    for name, read, words in [
        ("gray.png", read_palette_labels, "not a PNG with a palette"),
        ("alpha.png", read_palette_labels, "of the mode RGBA, not a PNG with a palette"),
        ("photo.jpg", read_palette_labels, "JPEG .* not a PNG with a palette"),
        ("palette.png", read_color_ids, "of the mode P, not a PNG of three channels"),
        ("alpha.png", read_color_ids, "not a PNG of three channels"),
        ("photo.jpg", read_color_ids, "JPEG .* not a PNG of three channels"),
        ("small.png", read_photo, "has 4 x 9 pixels, fewer than 8"),
        ("text.png", read_photo, "is not a PNG or JPEG image"),
    ]:
        with pytest.raises(ImageFileError, match=words) as caught:
            read(StoredFile(tmp_path / name))
        assert name in str(caught.value)


def test_claimed_size_is_checked_first(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (30000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageFileError, match="more pixels|pixels, more than"):
        read_photo(StoredFile(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cut_short(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    for share in (0.05, 0.3, 0.7):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ImageFileError, match="cannot be read|is not a PNG"):
            read_photo(StoredFile(path))
