from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_rpe.data import (
    VOID,
    ImageFileError,
    LabelFolderError,
    LabelPair,
    check_label_pairs,
    find_label_pairs,
    label_folder,
    read_class_names,
    read_image,
    read_label_pair,
    read_labels,
    split_pairs,
    write_image,
    write_labels,
)
from keras_rpe.data.crops import relabel_pieces

# What the split has given since it was written: a change would mix validation into training.
FIRST_SPLIT = ["06", "14", "24", "35"]
PLAIN = {"crop_size": 24, "batch_size": 4, "augment": False, "seed": 1}


def add(folder: Path, name: str, side: int = 40) -> None:
    """An image whose pixels tell their label: red is the id, green the row, blue the column."""
    rng = np.random.default_rng(list(name.encode()))
    labels = np.zeros((side, side + 4), int)
    for number in (7, 200, 11, 90):
        top, left = rng.integers(0, side - 6, 2)
        labels[top : top + 9, left : left + 9] = number
    rows, columns = np.indices(labels.shape)
    write_image(folder / f"images/{name}.png", np.stack([labels, rows, columns], -1).astype("u1"))
    write_labels(folder / f"instances/{name}.png", labels)


@pytest.fixture
def folder(tmp_path) -> Path:
    for part in ("images", "instances"):
        (tmp_path / part).mkdir()
    for name in "abcdef":
        add(tmp_path, name)
    return tmp_path


def batches(dataset: tf.data.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def equal(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b) for x, y in zip(one, other) for a, b in zip(x, y)
    )


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize(("repeats", "batch_size"), [(3, 8), (1, 100)])
def test_shapes_and_length(folder, augment, repeats, batch_size):
    options = {**PLAIN, "augment": augment, "repeats": repeats, "batch_size": batch_size}
    dataset = label_folder(folder, **{**options, "crop_size": (24, 16)})
    assert dataset.element_spec == (
        tf.TensorSpec((None, 24, 16, 3), tf.float32),
        tf.TensorSpec((None, 24, 16), tf.int32),
    )
    found = batches(dataset)
    assert len(dataset) == len(found) == -(-6 * repeats // batch_size)
    assert sum(len(images) for images, _ in found) == 6 * repeats
    for _, labels in found:
        for one in labels:
            assert set(np.unique(one)) | {0} == set(range(one.max() + 1))


def test_crops_show_the_image_with_its_pieces_numbered(folder):
    seen = 0
    for images, labels in batches(label_folder(folder, **PLAIN, repeats=4)):
        for image, one in zip(images, labels):
            assert (np.diff(image[..., 1], axis=0) == 1).all()
            assert (np.diff(image[..., 2], axis=1) == 1).all()
            np.testing.assert_array_equal(one, relabel_pieces(image[..., 0].astype(int)))
            seen += one.any()
    assert seen > 18


@pytest.mark.parametrize("augment", [False, True])
def test_seed_repeats_and_epochs_differ(folder, augment):
    options = {**PLAIN, "augment": augment}
    first, again = label_folder(folder, **options), label_folder(folder, **options)
    one, two = batches(first), batches(first)
    assert equal(one, batches(again))
    assert equal(two, batches(again))
    assert not equal(one, two)
    assert not equal(one, batches(label_folder(folder, **{**options, "seed": 2})))


def test_without_shuffle_epochs_are_equal_and_in_order(folder):
    dataset = label_folder(folder, **{**PLAIN, "crop_size": None, "batch_size": 1}, shuffle=False)
    found = batches(dataset)
    for name, (images, labels) in zip("abcdef", found):
        stored = np.asarray(Image.open(folder / "images" / f"{name}.png"))
        np.testing.assert_array_equal(images[0], stored)
        np.testing.assert_array_equal(labels[0], relabel_pieces(stored[..., 0]))
    crops = label_folder(folder, **PLAIN, shuffle=False)
    assert equal(batches(crops), batches(crops))


def test_whole_images_of_several_sizes(folder):
    add(folder, "g", side=61)
    for augment in (False, True):
        options = {"crop_size": None, "batch_size": 1, "augment": augment, "seed": 1}
        dataset = label_folder(folder, **options, repeats=2)
        assert dataset.element_spec[0].shape.as_list() == [None, None, None, 3]
        shapes = [images.shape for images, _ in batches(dataset)]
        assert sorted(shapes) == [(1, 40, 44, 3)] * 12 + [(1, 61, 65, 3)] * 2


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 4), ("uint16", None), ("float32", 3)])
def test_values_and_channels(tmp_path, dtype, channels):
    shape = (32, 32) if channels is None else (32, 32, channels)
    image = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    for part in ("scans", "masks"):
        (tmp_path / part).mkdir()
    photometric = "minisblack" if channels is None else "rgb"
    tifffile.imwrite(tmp_path / "scans" / "x.tif", image, photometric=photometric)
    write_labels(tmp_path / "masks" / "x.png", np.full((32, 32), 60000))
    options = {**PLAIN, "crop_size": None, "batch_size": 1}
    dataset = label_folder(tmp_path, images="scans/*.tif", instances="masks/*.png", **options)
    images, labels = batches(dataset)[0]
    wanted = np.stack([image] * 3, -1) if channels is None else image[..., :3]
    np.testing.assert_array_equal(images[0], wanted)
    assert images.dtype == np.float32
    assert (labels == 1).all()


def test_validation_split(folder):
    def reds(subset: str | None, seed: int = 1) -> list[str]:
        split = {} if subset is None else {"validation_split": 0.34, "subset": subset}
        options = {**PLAIN, "crop_size": None, "batch_size": 1, "seed": seed}
        return sorted(
            images.tobytes() for images, _ in batches(label_folder(folder, **options, **split))
        )

    training, validation = reds("training"), reds("validation")
    assert (len(training), len(validation)) == (4, 2)
    assert sorted(training + validation) == reds(None)
    assert reds("validation") == validation
    assert any(reds("validation", seed) != validation for seed in range(2, 6))


def test_own_augmentation(folder):
    seen = []

    def invert(data: dict) -> dict:
        seen.append(data["images"].shape.as_list())
        return {**data, "images": 255.0 - data["images"]}

    options = {**PLAIN, "shuffle": False, "crop_size": 24}
    plain = batches(label_folder(folder, **options))
    inverted = batches(label_folder(folder, **{**options, "augment": invert}))
    for (images, labels), (changed, changed_labels) in zip(plain, inverted):
        np.testing.assert_array_equal(changed, 255 - images)
        np.testing.assert_array_equal(changed_labels, labels)
    assert seen[0][0] is None
    assert seen[0][1] == seen[0][2] > 24 * 1.4
    flip = keras.layers.RandomFlip("horizontal", seed=1)
    flipped = batches(label_folder(folder, **{**options, "augment": flip}))
    assert flipped[0][0].shape == plain[0][0].shape


def test_bad_augmentation(folder):
    for augment, words in [
        (lambda data: 3, "dictionary of images and segmentation_masks. Received: int"),
        (lambda data: {k: v[:, :9] for k, v in data.items()}, "no smaller than crop_size"),
        ("flip", "augment='flip'"),
    ]:
        with pytest.raises(ValueError, match=words):
            label_folder(folder, **{**PLAIN, "augment": augment})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop_size": None}, "batch_size=4"),
        ({"crop_size": 0}, "crop_size=0"),
        ({"crop_size": (3, 4, 5)}, "crop_size="),
        ({"crop_size": 12.5}, "crop_size=12.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"repeats": True}, "repeats=True"),
        ({"zoom": (2.0, 1.0)}, r"zoom=\(2.0, 1.0\)"),
        ({"zoom": 1.5}, "zoom=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"split_pieces": "no"}, "split_pieces='no'"),
        ({"ignore_label": 0}, "ignore_label=0"),
        ({"num_classes": -1, "classes": "*"}, "num_classes=-1"),
        ({"num_classes": 3}, "num_classes=3, classes=None"),
        ({"names": "a"}, "names='a'"),
        ({"names": []}, r"names=\[\]"),
        ({"names": ["a", "zebra"]}, "'zebra'"),
        ({"subset": "training"}, "validation_split=None"),
        ({"validation_split": 0.5}, "subset=None"),
        ({"validation_split": 0.5, "subset": "test"}, "subset='test'"),
        ({"validation_split": 1.5, "subset": "training"}, "validation_split=1.5"),
    ],
)
def test_bad_arguments(folder, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        label_folder(folder, **{**PLAIN, **options})
    assert "\n" not in str(caught.value)


def test_bad_files_are_found_before_the_first_batch(folder):
    (folder / "images" / "a.png").write_bytes(b"")
    (folder / "instances" / "b.png").unlink()
    with pytest.raises(LabelFolderError, match=r"2 of 6 .*a\.png.*0 bytes.*b\.png.*no mask"):
        label_folder(folder, **PLAIN)


@pytest.mark.parametrize("augment", [False, True])
def test_file_lost_later_is_one_sentence_without_traceback(folder, augment):
    dataset = label_folder(folder, **{**PLAIN, "augment": augment})
    (folder / "images" / "c.png").unlink()
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        batches(dataset)
    assert "c.png does not exist." in caught.value.message
    assert "Traceback" not in caught.value.message
    assert 'File "' not in caught.value.message


def test_images_stay_in_memory_up_to_a_limit(folder, monkeypatch):
    kept = label_folder(folder, **PLAIN)
    batches(kept)
    monkeypatch.setattr("keras_rpe.data.crops.CACHE_BYTES", 0)
    dataset = label_folder(folder, **PLAIN)
    batches(dataset)
    add(folder, "a", side=40)
    assert len(batches(dataset)) == 2
    for file in (folder / "images").iterdir():
        file.unlink()
    assert len(batches(kept)) == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not exist"):
        batches(dataset)


@pytest.fixture
def classed(folder) -> Path:
    """The folder with classes: id 7 is of class 1, 200 of 2, 11 of 3, and 90 is void."""
    (folder / "semantic").mkdir()
    table = np.zeros(201, int)
    table[[7, 200, 11, 90]] = 1, 2, 3, 255
    for file in (folder / "instances").iterdir():
        write_labels(folder / "semantic" / file.name, table[read_labels(file)])
    return folder


def test_classes_void_and_pieces(classed):
    options = {**PLAIN, "classes": "semantic/*", "ignore_label": 255, "num_classes": 3}
    dataset = label_folder(classed, **options, split_pieces=False, repeats=4)
    table = {0: (0, 0), 7: (7, 1), 200: (200, 2), 11: (11, 3), 90: (VOID, VOID)}
    kinds = set()
    for images, labels in dataset:
        instances, classes = labels["instances"].numpy(), labels["classes"].numpy()
        for image, one, kind in zip(images.numpy(), instances, classes):
            pairs = np.array([table[red] for red in image[..., 0].astype(int).ravel()])
            np.testing.assert_array_equal(kind.ravel(), pairs[:, 1])
            ids = sorted(set(pairs[:, 0].tolist()) - {VOID, 0})
            for number, id_in_file in enumerate(ids, start=1):
                np.testing.assert_array_equal(one.ravel() == number, pairs[:, 0] == id_in_file)
            np.testing.assert_array_equal(one.ravel() == VOID, pairs[:, 0] == VOID)
            kinds |= set(kind.ravel().tolist())
    assert kinds == {VOID, 0, 1, 2, 3}


def test_void_without_classes(folder):
    options = {**PLAIN, "crop_size": (60, 30), "ignore_label": 90, "split_pieces": False}
    voids = 0
    for images, labels in batches(label_folder(folder, **options)):
        inside = (np.diff(images[..., 1], axis=1, append=-1) == 1)[:, :, 0]
        for image, one, rows in zip(images, labels, inside):
            np.testing.assert_array_equal(one[rows] == VOID, image[rows][..., 0] == 90)
            assert (one == VOID).all(axis=1).sum() == 20
            voids += (one[rows] == VOID).sum()
    assert voids


def test_bad_classes(classed):
    options = {**PLAIN, "classes": "semantic/*"}
    with pytest.raises(ValueError, match=r"classes='other/\*'"):
        label_folder(classed, **{**options, "classes": "other/*"})
    with pytest.raises(tf.errors.InvalidArgumentError, match="has the class 255, above"):
        list(label_folder(classed, **options, num_classes=3))
    (classed / "semantic/a.png").unlink()
    write_labels(classed / "semantic/b.png", np.zeros((8, 8), int))
    with pytest.raises(LabelFolderError, match=r"a\.png: it has no map of classes; b\.png: it has"):
        label_folder(classed, **options)


def test_real_photographs_with_classes(data_root):
    root, void = data_root / "coco_ccby", 255
    if not root.is_dir():
        pytest.skip(f"photographs not found in {root}")
    count = len(read_class_names(root / "meta.json"))
    options = {**PLAIN, "crop_size": None, "batch_size": 1, "shuffle": False, "ignore_label": void}
    dataset = label_folder(
        root, **options, classes="semantic/*", num_classes=count, split_pieces=False
    )
    files = sorted((root / "instances").iterdir())
    assert len(dataset) == len(files) == 26
    found = 0
    for file, (batch, labels) in zip(files, dataset):
        image = next((root / "images").glob(f"{file.stem}.*"))
        np.testing.assert_array_equal(batch[0], read_image(image))
        stored, kinds = read_labels(file), read_labels(root / "semantic" / file.name)
        instances, classes = labels["instances"][0].numpy(), labels["classes"][0].numpy()
        np.testing.assert_array_equal(classes, np.where(kinds == void, VOID, kinds))
        np.testing.assert_array_equal(instances == VOID, stored == void)
        # Ids are kept, but for gaps.
        pairs = np.flatnonzero(np.bincount((stored * 512 + instances + 1).ravel()))
        assert len(pairs) == len(set(pairs // 512)) == len(set(pairs % 512))
        found += int(instances.max())
    assert found == 180


@pytest.fixture
def pairs_folder(tmp_path) -> Path:
    for part in ("images", "instances"):
        (tmp_path / part).mkdir()
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.png", np.zeros((16, 20, 3), "uint8"))
        write_labels(tmp_path / "instances" / f"{name}.png", np.ones((16, 20), int))
    return tmp_path


def named(names) -> list[LabelPair]:
    return [LabelPair(Path(f"{name}.png"), Path(f"{name}.tif"), name) for name in names]


def test_pairs_are_matched_by_stem(pairs_folder):
    pairs = find_label_pairs(pairs_folder)
    assert [pair.name for pair in pairs] == ["a", "b"]
    assert pairs[0].image == pairs_folder / "images" / "a.png"
    assert pairs[0].instances == pairs_folder / "instances" / "a.png"
    with (pairs_folder / "images" / "a.png").open("ab") as file:
        file.write(b"trailing")  # which is no fault
    check_label_pairs(pairs)


def test_two_files_of_one_name(pairs_folder):
    (pairs_folder / "images" / "a.jpg").touch()
    with pytest.raises(LabelFolderError, match=r"images/a\.jpg and images/a\.png"):
        find_label_pairs(pairs_folder)


def test_all_bad_pairs_are_listed_at_once(pairs_folder):
    def add(name: str, labels: np.ndarray | None, image: bool = True) -> None:
        if image:
            write_image(pairs_folder / "images" / f"{name}.png", np.zeros((16, 20, 3), "uint8"))
        if labels is not None:
            tifffile.imwrite(pairs_folder / "instances" / f"{name}.tif", labels)

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
    (pairs_folder / "images" / "broken.png").write_bytes(b"")
    (pairs_folder / "images" / "small.png").unlink()
    write_image(pairs_folder / "images" / "small.png", np.zeros((5, 20, 3), "uint8"))
    (pairs_folder / "images" / "nan.png").unlink()
    tifffile.imwrite(pairs_folder / "images" / "nan.tif", np.full((16, 20), np.nan, "float32"))
    cut = pairs_folder / "images" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(LabelFolderError) as caught:
        check_label_pairs(find_label_pairs(pairs_folder))
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
def test_cut_file_is_found_without_its_end(pairs_folder, name):
    path = pairs_folder / name
    for old in path.parent.glob("a.*"):
        old.unlink()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (16, 20), "uint8")).save(path)
    check_label_pairs(find_label_pairs(pairs_folder))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LabelFolderError, match=f"1 of 2 .*{path.name}: it cannot be read"):
        check_label_pairs(find_label_pairs(pairs_folder))


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


def pair(folder: Path, instances: list, classes: list | None, side: int = 8) -> LabelPair:
    write_image(folder / "image.png", np.zeros((side, 8, 3), np.uint8))
    write_labels(folder / "instances.png", np.repeat([instances], 8, 0))
    if classes is not None:
        write_labels(folder / "classes.png", np.repeat([classes], 8, 0))
    file = None if classes is None else folder / "classes.png"
    return LabelPair(folder / "image.png", folder / "instances.png", "a", file)


def test_maps_agree(tmp_path):
    one = pair(tmp_path, [0, 3, 3, 3, 300, 300, 255, 0], [0, 2, 2, 1, 5, 255, 4, 7])
    _, instances, classes = read_label_pair(one, 255, 7)
    assert instances[0].tolist() == [0, 3, 3, -1, 300, -1, -1, 0]
    assert classes[0].tolist() == [0, 2, 2, -1, 5, -1, -1, 7]


def test_what_does_not_fit(tmp_path):
    one = pair(tmp_path, [0, 3, 3, 3, 0, 0, 0, 0], [0, 8, 8, 8, 0, 0, 0, 0])
    with pytest.raises(ImageFileError, match=r"classes\.png has the class 8, above num_classes"):
        read_label_pair(one, None, 7)
    one = pair(tmp_path, [0, 3, 3, 3, 0, 0, 0, 0], [0] * 8)
    with pytest.raises(ImageFileError, match=r"classes\.png has no class for the object 3"):
        read_label_pair(one)
    one = pair(tmp_path, [0] * 8, [0] * 8, side=9)
    with pytest.raises(ImageFileError, match=r"instances\.png and its image differ in size"):
        read_label_pair(one)
    with pytest.raises(ImageFileError, match="a has no image, or no labels"):
        read_label_pair(one._replace(image=None))
