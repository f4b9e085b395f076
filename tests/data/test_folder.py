from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from keras_rpe.data import (
    VOID,
    ImageFileError,
    LabelFolderError,
    label_folder,
    read_class_names,
    read_image,
    read_labels,
    write_image,
    write_labels,
)


@pytest.fixture
def pairs_folder(tmp_path) -> Path:
    for part in ("images", "instances"):
        (tmp_path / part).mkdir()
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.png", np.zeros((16, 20, 3), "uint8"))
        write_labels(tmp_path / "instances" / f"{name}.png", np.ones((16, 20), int))
    return tmp_path


def test_images_and_labels_are_matched_by_stem(pairs_folder):
    with (pairs_folder / "images" / "a.png").open("ab") as file:
        file.write(b"trailing")  # which is no fault
    found = label_folder(pairs_folder)
    assert found.names == ("a", "b")
    assert found[0].classes is found.class_names is None
    (pairs_folder / "images" / "b.png").write_bytes(b"")
    assert label_folder(pairs_folder, names=["a"]).names == ("a",)
    (pairs_folder / "images" / "a.jpg").touch()
    with pytest.raises(LabelFolderError, match=r"images/a\.jpg and images/a\.png"):
        label_folder(pairs_folder)


def test_labels_as_segment_writes_them(pairs_folder):
    labels = pairs_folder / "instances"
    before = [one.instances for one in label_folder(pairs_folder)]
    for name in "ab":
        (labels / f"{name}.png").rename(labels / f"{name}_labels.png")
    found = label_folder(pairs_folder, instances="instances/*_labels.png")
    assert found.names == ("a", "b")
    for one, expected in zip(found, before):
        np.testing.assert_array_equal(one.instances, expected)
    (labels / "b_labels.png").rename(labels / "c_labels.png")
    with pytest.raises(LabelFolderError, match=r"b\.png: it has no mask"):
        label_folder(pairs_folder)


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 4), ("uint16", None), ("float32", 3)])
def test_values_and_channels(tmp_path, dtype, channels):
    shape = (32, 32) if channels is None else (32, 32, channels)
    image = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    for part in ("scans", "masks"):
        (tmp_path / part).mkdir()
    photometric = "minisblack" if channels is None else "rgb"
    tifffile.imwrite(tmp_path / "scans" / "x.tif", image, photometric=photometric)
    write_labels(tmp_path / "masks" / "x.png", np.full((32, 32), 60000))
    found = label_folder(tmp_path, images="scans/*.tif", instances="masks/*.png")
    np.testing.assert_array_equal(found[0].image, image)
    assert (found[0].instances == 60000).all()
    images, labels = next(iter(found.crops(None, 1, augment=False)))
    wanted = np.stack([image] * 3, -1) if channels is None else image[..., :3]
    np.testing.assert_array_equal(images[0], wanted)
    assert images.dtype == tf.float32
    assert (labels.numpy() == 1).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ignore_label": 0}, "ignore_label=0"),
        ({"num_classes": -1, "classes": "*"}, "num_classes=-1"),
        ({"num_classes": 3}, "num_classes=3, classes=None"),
        ({"names": "a"}, "names='a'"),
        ({"names": ["a", "zebra"]}, "'zebra'"),
        ({"classes": "other/*"}, r"classes='other/\*'"),
    ],
)
def test_bad_arguments(pairs_folder, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        label_folder(pairs_folder, **options)
    assert "\n" not in str(caught.value)


def test_all_bad_pairs_are_listed_at_once(pairs_folder):
    def add(name: str, labels: np.ndarray | None, image: bool = True) -> None:
        if image:
            write_image(pairs_folder / "images" / f"{name}.png", np.zeros((16, 20, 3), "uint8"))
        if labels is not None:
            tifffile.imwrite(pairs_folder / "instances" / f"{name}.tif", labels)

    plain = np.ones((16, 20), "uint8")
    add("no_mask", None)
    add("no_image", plain, image=False)
    add("size", plain[:, :9])
    add("negative", -plain.astype("int32"))
    add("channels", np.zeros((16, 20, 3), "uint8"))
    add("broken", plain)
    add("nan", plain)
    (pairs_folder / "images" / "broken.png").write_bytes(b"")
    (pairs_folder / "images" / "nan.png").unlink()
    tifffile.imwrite(pairs_folder / "images" / "nan.tif", np.full((16, 20), np.nan, "float32"))
    with pytest.raises(LabelFolderError) as caught:
        label_folder(pairs_folder)
    message = str(caught.value)
    assert message.startswith("7 of 9 image pairs")
    for words in (
        "no_mask.png: it has no mask",
        "no_image.tif: it has no image",
        "size.tif: it has 16 x 9 pixels, but its image size.png has 16 x 20",
        "negative.tif: it holds negative ids",
        "channels.tif: it has 3 channels",
        "broken.png: it is empty (0 bytes)",
        "nan.tif: it holds NaN",
    ):
        assert words in message
    assert "a.png" not in message.replace("nan.png", "")


@pytest.mark.parametrize("name", ["instances/a.png", "instances/a.tif", "images/a.jpg"])
def test_cut_file_is_found_without_its_end(pairs_folder, name):
    path = pairs_folder / name
    for old in path.parent.glob("a.*"):
        old.unlink()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (16, 20), "uint8")).save(path)
    label_folder(pairs_folder)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LabelFolderError, match=f"1 of 2 .*{path.name}: it cannot be read"):
        label_folder(pairs_folder)


def test_first_twenty_are_named(pairs_folder):
    for number in range(25):
        (pairs_folder / "images" / f"{number:02d}.png").touch()
    with pytest.raises(LabelFolderError, match=r"25 of 27.*19\.png: .*; and 5 more") as caught:
        label_folder(pairs_folder)
    assert "20.png" not in str(caught.value)


def write_classed(folder: Path, instances: list[int], classes: list[int], side: int = 8) -> Path:
    for part in ("images", "instances", "classes"):
        (folder / part).mkdir(exist_ok=True)
    write_image(folder / "images/a.png", np.zeros((8, 8, 3), np.uint8))
    write_labels(folder / "instances/a.png", np.repeat([instances], 8, 0))
    write_labels(folder / "classes/a.png", np.repeat([classes], side, 0))
    return folder


def test_maps_agree(tmp_path):
    write_classed(tmp_path, [0, 3, 3, 3, 300, 300, 255, 0], [0, 2, 2, 1, 5, 255, 4, 7])
    options = {"classes": "classes/*", "ignore_label": 255}
    found = label_folder(tmp_path, **options, num_classes=7)
    assert found[0].instances[0].tolist() == [0, 3, 3, -1, 300, -1, -1, 0]
    assert found[0].classes[0].tolist() == [0, 2, 2, -1, 5, -1, -1, 7]
    (_, labels), *_ = found.crops(16, augment=False)
    assert set(np.unique(labels["classes"])) == {VOID, 0, 2, 5, 7}
    with pytest.raises(ImageFileError, match=r"a\.png has the class 7, above num_classes"):
        label_folder(tmp_path, **options, num_classes=6)[0]


def test_what_does_not_fit(tmp_path):
    write_classed(tmp_path, [0, 3, 3, 3, 0, 0, 0, 0], [0] * 8)
    found = label_folder(tmp_path, classes="classes/*")
    with pytest.raises(ImageFileError, match=r"classes/a\.png has no class for the object 3"):
        found[0]
    write_labels(tmp_path / "instances/a.png", np.zeros((9, 8), int))  # after it was checked
    with pytest.raises(ImageFileError, match=r"instances/a\.png and its image differ in size"):
        found[0]
    write_classed(tmp_path, [0] * 8, [0] * 8, side=9)
    with pytest.raises(LabelFolderError, match=r"a\.png: it has 9 x 8 pixels, but its image"):
        label_folder(tmp_path, classes="classes/*")
    (tmp_path / "classes/a.png").rename(tmp_path / "classes/b.png")
    with pytest.raises(LabelFolderError, match=r"a\.png: it has no map of classes; b\.png: it"):
        label_folder(tmp_path, classes="classes/*")


def test_real_photographs_with_classes(data_root):
    root, void = data_root / "coco_ccby", 255
    if not root.is_dir():
        pytest.skip(f"photographs not found in {root}")
    count = len(read_class_names(root / "meta.json"))
    found = label_folder(root, classes="semantic/*", num_classes=count, ignore_label=void)
    assert len(found) == 26
    objects = 0
    for name, (image, instances, classes) in zip(found.names, found):
        np.testing.assert_array_equal(image, read_image(next((root / "images").glob(f"{name}.*"))))
        stored, kinds = (
            read_labels(root / part / f"{name}.png") for part in ("instances", "semantic")
        )
        np.testing.assert_array_equal(classes, np.where(kinds == void, VOID, kinds))
        np.testing.assert_array_equal(instances, np.where(stored == void, VOID, stored))
        objects += len(set(np.unique(instances)) - {VOID, 0})
    assert objects == 180
