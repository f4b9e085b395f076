from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from voc_layout import scene

from keras_rpe.data import VOID, ImageFileError, LabelFolderError, LabelledImages, LabelMaps
from keras_rpe.data.crops import relabel_pieces
from keras_rpe.data.labels import agreed_maps

# What the split has given since it was written: a change would mix validation into training.
FIRST_SPLIT = ("06", "14", "24", "35")
PLAIN = {"crop_size": 32, "batch_size": 3, "augment": False, "seed": 1}
WHOLE = {"crop_size": None, "batch_size": 1, "augment": False, "shuffle": False}


def maps(seed: int) -> LabelMaps:
    """A scene whose red is the instance, green the class, both times ten, and blue the row."""
    _, instances, classes = scene(seed, classes=5)
    labels = (np.where(one == 255, VOID, one.astype(int)) for one in (instances, classes))
    instances, classes = agreed_maps("scene", *labels)
    rows = np.indices(instances.shape)[0]
    image = np.stack([10 * (instances + 1), 10 * (classes + 1), rows], -1).astype(np.uint8)
    return LabelMaps(image, instances, classes)


def only_instances(seed: int) -> LabelMaps:
    image, instances, _ = maps(seed)
    return LabelMaps(image, np.where(instances == VOID, 0, instances), None)


def named(names: Any) -> LabelledImages:
    return LabelledImages({name: number for number, name in enumerate(names)}, maps)


SCENES = named("abcd")
INSTANCES = LabelledImages(
    dict(zip("abcd", range(4))), only_instances, photographs=False, void=False, classes=False
)


def batches(dataset: tf.data.Dataset) -> list[tuple[np.ndarray, ...]]:
    return [tuple(one.numpy() for one in tf.nest.flatten(batch)) for batch in dataset]


def equal(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b) for x, y in zip(one, other) for a, b in zip(x, y)
    )


def noted(broken: int | None = None) -> tuple[LabelledImages, list[int]]:
    """Images that are read into a list of their numbers."""
    read: list[int] = []

    def reader(seed: int) -> LabelMaps:
        read.append(seed)
        if seed == broken:
            raise ImageFileError(f"scene {seed} is broken.")
        return maps(seed)

    return LabelledImages(dict(zip("dcba", range(4))), reader, ["one", "two"]), read


def test_it_is_a_sequence_that_reads_when_it_is_indexed():
    images, read = noted()
    part = images[1:].subset({"a", "c"})
    assert (part.names, part.class_names, len(part)) == (("c", "a"), ("one", "two"), 2)
    assert read == []
    np.testing.assert_array_equal(part[-1].instances, maps(3).instances)
    assert len(list(part)) == 2
    assert read == [3, 1, 3]
    assert repr(images) == "<4 LabelledImages: 'd', 'c', 'b', ...>"
    with pytest.raises(IndexError):
        part[2]
    with pytest.raises(ValueError, match="at least one image"):
        images[:0].crops(32)
    for names, words in (("a", "names='a'"), ([], r"names=\[\]")):
        with pytest.raises(ValueError, match=words):
            images.subset(names)
    with pytest.raises(LabelFolderError, match="'zebra'"):
        images.subset(["a", "zebra"])


def test_two_sequences_become_one():
    both = SCENES[:2] + named("xy")
    assert both.names == ("a", "b", "x", "y")
    np.testing.assert_array_equal(both[2].instances, maps(0).instances)
    np.testing.assert_array_equal(both.subset(["b"])[0].instances, maps(1).instances)
    assert len(list((both + named("z")).crops(32, 5, seed=0))) == 1
    three = SCENES[:1].repeated(3)
    assert three.names == ("a", "a~2", "a~3")
    np.testing.assert_array_equal(three[2].instances, maps(0).instances)
    for other, words in ((SCENES[1:], "both have 'b'"), (INSTANCES[:0], "photographs")):
        with pytest.raises(ValueError, match=words):
            SCENES + other


@given(
    names=st.lists(st.text("abcdef0123", min_size=1), min_size=2, max_size=40, unique=True),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_split_is_disjoint_whole_and_independent_of_order(names, share, seed, data):
    training, validation = (one.names for one in named(names).split(share, seed))
    assert training
    assert validation
    assert sorted(training + validation) == sorted(names)
    assert (list(training), list(validation)) == (sorted(training), sorted(validation))
    assert abs(len(validation) - share * len(names)) <= 1
    shuffled = named(data.draw(st.permutations(names))).split(share, seed)
    assert tuple(one.names for one in shuffled) == (training, validation)


def test_split_is_the_same_for_ever_and_differs_by_seed():
    images = named([f"{i:02d}" for i in range(40)])
    first = images.split(0.1, 1)[1].names
    assert first == FIRST_SPLIT
    assert first != images.split(0.1, 2)[1].names
    assert images.split(0.1)[1].names == images.split(0.1, 0)[1].names
    with pytest.raises(ValueError, match="validation_split=1.5"):
        images.split(1.5)
    with pytest.raises(ValueError, match="at least two images. Received: 1"):
        images[:1].split(0.5)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize(("repeats", "batch_size"), [(3, 8), (1, 100)])
def test_shapes_and_length(augment, repeats, batch_size):
    dataset = INSTANCES.crops((24, 16), batch_size, augment=augment, repeats=repeats)
    assert dataset.element_spec == (
        tf.TensorSpec((None, 24, 16, 3), tf.float32),
        tf.TensorSpec((None, 24, 16), tf.int32),
    )
    found = batches(dataset)
    assert len(dataset) == len(found) == -(-4 * repeats // batch_size)
    assert sum(len(images) for images, _ in found) == 4 * repeats
    for _, labels in found:
        for one in labels:
            assert set(np.unique(one)) | {0} == set(range(one.max() + 1))


@pytest.mark.parametrize("augment", [False, "photo"])
def test_seed_repeats_and_epochs_differ(augment):
    options = {**PLAIN, "augment": augment}
    first, again = SCENES.crops(**options), SCENES.crops(**options)
    one, two = batches(first), batches(first)
    assert equal(one, batches(again))
    assert equal(two, batches(again))
    assert not equal(one, two)
    assert not equal(one, batches(SCENES.crops(**{**options, "seed": 2})))
    if not augment:
        fixed = SCENES.crops(**PLAIN, shuffle=False)
        assert equal(batches(fixed), batches(fixed))


def numbered(instances: np.ndarray, split_pieces: bool) -> np.ndarray:
    """Number anew what is no void."""
    void = instances == VOID
    objects = np.where(void, 0, instances)
    if split_pieces:
        return np.where(void, VOID, relabel_pieces(objects))
    ids = [0, *sorted(set(objects.ravel().tolist()) - {0})]
    return np.where(void, VOID, np.vectorize(ids.index)(objects))


@pytest.mark.parametrize("split_pieces", [None, True])
def test_instances_and_classes_lie_on_their_pixels(split_pieces):
    pieces = 0
    options = {**PLAIN, "crop_size": 44, "repeats": 2, "split_pieces": split_pieces}
    for images, labels in SCENES.crops(**options):
        for image, instances, classes in zip(images.numpy(), *(labels[k].numpy() for k in labels)):
            red = np.rint(image[..., 0] / 10).astype(int) - 1
            np.testing.assert_array_equal(classes, np.rint(image[..., 1] / 10) - 1)
            np.testing.assert_array_equal(instances, numbered(red, bool(split_pieces)))
            pieces += instances.max()
    assert pieces > 8


@pytest.mark.parametrize("side", [10, 40])
def test_crops_show_objects_at_a_diameter(side: int) -> None:
    labels = np.zeros((400, 400), "int32")
    for number, (row, column) in enumerate(np.ndindex(400 // side // 2, 400 // side // 2), 1):
        place = (
            slice(2 * row * side, (2 * row + 1) * side),
            slice(2 * column * side, (2 * column + 1) * side),
        )
        labels[place] = number
    maps = LabelMaps((labels > 0).astype("uint8") * 200, labels, None)
    images = LabelledImages(
        {"a": maps}, lambda one: one, photographs=False, void=False, classes=False
    )
    found = []
    for _, crops in images.crops(96, 8, repeats=64, seed=0, diameter=20):
        for crop in np.asarray(crops):
            areas = np.bincount(crop.ravel())[1:]
            found += [np.sqrt(4 * np.median(areas) / np.pi)] if len(areas) else []
    assert 14 < np.median(found) < 24
    assert np.percentile(found, 10) < 0.75 * np.median(found)
    with pytest.raises(ValueError, match="diameter=-1"):
        images.crops(96, diameter=-1)
    with pytest.raises(ValueError, match="`zoom` and `diameter` must not both"):
        images.crops(96, diameter=20, zoom=(1, 2))


def test_whole_images_are_the_maps_themselves():
    for wanted, found in zip(SCENES, SCENES.crops(**WHOLE)):
        image, classes, instances = (one[0] for one in tf.nest.flatten(found))
        for one, other in zip((image, instances, classes), wanted):
            np.testing.assert_array_equal(one, other)
    for seed, (_, labels) in enumerate(INSTANCES.crops(**WHOLE)):
        wanted = relabel_pieces(only_instances(seed).instances)
        np.testing.assert_array_equal(labels[0], wanted)


@pytest.mark.parametrize(("void", "beyond"), [(True, VOID), (False, 0)])
def test_what_lies_beyond_an_image(void, beyond):
    images = LabelledImages({"a": 0}, only_instances, void=void, classes=False)
    ((image, labels),) = batches(images.crops((80, 64), augment=False))
    top = int((image[0, :, 0, 2] == 0).sum()) - 1  # rows before the first of the image
    wanted = np.pad(
        numbered(images[0].instances, False), ((top, 32 - top), (0, 0)), constant_values=beyond
    )
    np.testing.assert_array_equal(labels[0], wanted)


@pytest.mark.parametrize("augment", [True, "photo"])
def test_augmented_labels_stay_together(augment):
    kinds = set()
    for _, labels in SCENES.crops(**{**PLAIN, "augment": augment, "repeats": 2}):
        instances, classes = labels["instances"].numpy(), labels["classes"].numpy()
        np.testing.assert_array_equal(instances == VOID, classes == VOID)
        np.testing.assert_array_equal(instances > 0, classes > 0)
        for one, kind in zip(instances, classes):
            assert set(np.unique(one)) - {VOID, 0} == set(range(1, one.max() + 1))
            for number in range(1, one.max() + 1):
                assert len(np.unique(kind[one == number])) == 1
        kinds |= set(np.unique(classes).tolist())
    assert len(kinds) > 4


def test_own_augmentation():
    seen = []

    def invert(data: dict) -> dict:
        seen.append(list(data["images"].shape))
        return {**data, "images": 255.0 - data["images"]}

    options = {**PLAIN, "shuffle": False}
    plain = batches(SCENES.crops(**options))
    changed = batches(SCENES.crops(**{**options, "augment": invert}))
    assert equal([(255 - image, *labels) for image, *labels in plain], changed)
    assert seen[0][1] == seen[0][2] > 32 * 1.4
    flip = keras.layers.RandomFlip("horizontal", seed=1)
    assert next(iter(SCENES.crops(**{**options, "augment": flip})))[0].shape == plain[0][0].shape


def test_numbers_made_up_by_an_augmentation_are_void():
    def blot(data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        corner = tf.reduce_max(tf.meshgrid(*(tf.range(n) for n in data["images"].shape[1:3])), 0)
        masks = tf.where(corner[None, ..., None] < 20, 5000.0, data["segmentation_masks"])
        return {**data, "segmentation_masks": tf.where(masks < 0.5, -3.0, masks)}

    _, labels = next(iter(SCENES.crops(32, 1, augment=blot)))
    assert labels["instances"][0, 0, 0] == labels["classes"][0, 0, 0] == VOID
    assert not (labels["instances"].numpy() == 0).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop_size": None}, "batch_size=3"),
        ({"crop_size": 0}, "crop_size=0"),
        ({"crop_size": (3, 4, 5)}, "crop_size="),
        ({"batch_size": 0}, "batch_size=0"),
        ({"repeats": True}, "repeats=True"),
        ({"augment": False, "zoom": (1.0, 2.0)}, "`zoom` goes with augment=True, .*augment=False"),
        ({"zoom": (2.0, 1.0)}, r"zoom=\(2.0, 1.0\)"),
        ({"seed": -1}, "seed=-1"),
        ({"split_pieces": "no"}, "split_pieces='no'"),
        ({"augment": "flip"}, "augment='flip'"),
        ({"augment": lambda data: 3}, "dictionary of images and segmentation_masks. Received: int"),
        (
            {"augment": lambda data: {key: value[:, :9] for key, value in data.items()}},
            "no smaller than crop_size",
        ),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(ValueError, match=words) as caught:
        SCENES.crops(**{**PLAIN, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("augment", [False, True])
def test_error_of_a_file_is_one_sentence(augment):
    images, _ = noted(broken=2)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(images.crops(32, augment=augment))
    assert "scene 2 is broken." in caught.value.message
    assert "Traceback" not in caught.value.message


def test_images_stay_in_memory_up_to_a_limit(monkeypatch):
    for limit, count in ((2**30, 4), (0, 8)):
        monkeypatch.setattr("keras_rpe.data.crops.CACHE_BYTES", limit)
        images, read = noted()
        list(images.crops(**PLAIN, repeats=2))
        assert len(read) == count
