from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from keras_rpe.data import (
    LabelFolderError,
    LabelPair,
    check_label_pairs,
    find_label_pairs,
    split_pairs,
    write_image,
    write_labels,
)

# What the split has given since it was written: a change would mix validation into training.
FIRST_SPLIT = ["06", "14", "24", "35"]


@pytest.fixture
def folder(tmp_path) -> Path:
    for part in ("images", "instances"):
        (tmp_path / part).mkdir()
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.png", np.zeros((16, 20, 3), "uint8"))
        write_labels(tmp_path / "instances" / f"{name}.png", np.ones((16, 20), int))
    return tmp_path


def named(names) -> list[LabelPair]:
    return [LabelPair(Path(f"{name}.png"), Path(f"{name}.tif"), name) for name in names]


def test_pairs_are_matched_by_stem(folder):
    pairs = find_label_pairs(folder)
    assert [pair.name for pair in pairs] == ["a", "b"]
    assert pairs[0].image == folder / "images" / "a.png"
    assert pairs[0].instances == folder / "instances" / "a.png"
    check_label_pairs(pairs)


def test_other_endings_and_globs(folder):
    (folder / "instances").rename(folder / "masks")
    (folder / "masks" / "a.png").unlink()
    write_labels(folder / "masks" / "a.tif", np.full((16, 20), 70000))
    (folder / "masks" / "notes.txt").touch()
    pairs = find_label_pairs(folder, "images/*.png", "masks/*")
    assert [pair.instances.name for pair in pairs] == ["a.tif", "b.png"]
    check_label_pairs(pairs)


def test_folder_without_files(folder):
    with pytest.raises(LabelFolderError, match="existing folder"):
        find_label_pairs(folder / "missing")
    with pytest.raises(LabelFolderError, match=r"instances='masks/\*'"):
        find_label_pairs(folder, instances="masks/*")


def test_two_files_of_one_name(folder):
    (folder / "images" / "a.jpg").touch()
    with pytest.raises(LabelFolderError, match=r"images/a\.jpg and images/a\.png"):
        find_label_pairs(folder)


def test_all_bad_pairs_are_listed_at_once(folder):
    def add(name: str, labels: np.ndarray | None, image: bool = True) -> None:
        if image:
            write_image(folder / "images" / f"{name}.png", np.zeros((16, 20, 3), "uint8"))
        if labels is not None:
            tifffile.imwrite(folder / "instances" / f"{name}.tif", labels)

    plain = np.ones((16, 20))
    add("no_mask", None)
    add("no_image", plain.astype("uint8"), image=False)
    add("size", plain[:, :9].astype("uint8"))
    add("float", plain.astype("float32"))
    add("negative", (-plain).astype("int32"))
    add("large", (plain * 2**31).astype("uint32"))
    add("channels", np.zeros((16, 20, 3), "uint8"))
    add("broken", plain.astype("uint8"))
    add("cut", plain.astype("uint8"))
    add("small", plain[:5].astype("uint8"))
    add("nan", plain.astype("uint8"))
    (folder / "images" / "broken.png").write_bytes(b"")
    (folder / "images" / "small.png").unlink()
    write_image(folder / "images" / "small.png", np.zeros((5, 20, 3), "uint8"))
    (folder / "images" / "nan.png").unlink()
    tifffile.imwrite(folder / "images" / "nan.tif", np.full((16, 20), np.nan, "float32"))
    cut = folder / "images" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(LabelFolderError) as caught:
        check_label_pairs(find_label_pairs(folder))
    message = str(caught.value)
    assert message.startswith("11 of 13 image pairs")
    for words in (
        "no_mask.png: it has no mask",
        "no_image.tif: it has no image",
        "size.tif: it has 16 x 9 pixels, but its image size.png has 16 x 20",
        "float.tif: it holds values of type float32",
        "negative.tif: it holds negative ids",
        "large.tif: it holds ids above 2**31 - 1",
        "channels.tif: it has 3 channels",
        "broken.png: it is empty (0 bytes)",
        "cut.png: it cannot be read",
        "small.png: it has 5 x 20 pixels, fewer than 8",
        "nan.tif: it holds NaN",
    ):
        assert words in message
    assert "a.png" not in message.replace("nan.png", "")


@pytest.mark.parametrize("name", ["instances/a.png", "instances/a.tif", "images/a.jpg"])
def test_cut_file_is_found_without_its_end(folder, name):
    from PIL import Image

    path = folder / name
    for old in path.parent.glob("a.*"):
        old.unlink()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (16, 20), "uint8")).save(path)
    check_label_pairs(find_label_pairs(folder))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LabelFolderError, match=f"1 of 2 .*{path.name}: it cannot be read"):
        check_label_pairs(find_label_pairs(folder))


def test_bytes_after_the_end_are_no_fault(folder):
    path = folder / "images" / "a.png"
    path.write_bytes(path.read_bytes() + b"trailing")
    check_label_pairs(find_label_pairs(folder))


def test_first_twenty_are_named():
    pairs = [LabelPair(Path(f"{i:02d}.png"), None, f"{i:02d}") for i in range(25)]
    with pytest.raises(LabelFolderError, match=r"19\.png: it has no mask; and 5 more") as caught:
        check_label_pairs(pairs)
    assert "20.png" not in str(caught.value)


@given(
    names=st.lists(st.text("abcdef0123", min_size=1), min_size=2, max_size=40, unique=True),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_split_is_disjoint_whole_and_independent_of_order(names, share, seed, data):
    training, validation = split_pairs(named(names), share, seed)
    assert training
    assert validation
    assert sorted(pair.name for pair in training + validation) == sorted(names)
    assert abs(len(validation) - share * len(names)) <= 1
    shuffled = data.draw(st.permutations(names))
    assert split_pairs(named(shuffled), share, seed) == (training, validation)


def test_split_is_the_same_for_ever_and_differs_by_seed():
    pairs = named([f"{i:02d}" for i in range(40)])
    first = [pair.name for pair in split_pairs(pairs, 0.1, 1)[1]]
    assert first == FIRST_SPLIT
    assert first != [pair.name for pair in split_pairs(pairs, 0.1, 2)[1]]
    assert split_pairs(pairs, 0.1, None) == split_pairs(pairs, 0.1, 0)


def test_bad_split():
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_pairs(named("abc"), share)
    with pytest.raises(ValueError, match="at least two"):
        split_pairs(named("a"), 0.5)


def test_classes_are_a_third_file(folder):
    with pytest.raises(LabelFolderError, match=r"classes='semantic/\*'"):
        find_label_pairs(folder, classes="semantic/*")
    (folder / "semantic").mkdir()
    write_labels(folder / "semantic" / "a.png", np.ones((16, 20), int))
    write_labels(folder / "semantic" / "c.png", np.ones((16, 20), int))
    pairs = find_label_pairs(folder, classes="semantic/*")
    assert [pair.classes and pair.classes.name for pair in pairs] == ["a.png", None, "c.png"]
    check_label_pairs(pairs[:2])
    with pytest.raises(
        LabelFolderError, match=r"b\.png: it has no map of classes; c\.png: it has no"
    ):
        check_label_pairs(pairs, classes=True)
    check_label_pairs(pairs[:1], classes=True)
    write_labels(folder / "semantic" / "a.png", np.ones((20, 16), int))
    with pytest.raises(LabelFolderError, match=r"a\.png: it has 20 x 16 pixels, but its image a"):
        check_label_pairs(pairs[:1], classes=True)
