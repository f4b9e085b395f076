from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.data import VOC_CLASSES, VOID, ImageFileError, read_class_names
from keras_rpe.data.labels import agreed_maps, class_numbers, pair_codes


def agreed_by_hand(instances: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kinds = {}
    for one in set(instances[instances > 0].tolist()):
        counts = np.bincount(classes[(instances == one) & (classes > 0)])
        kinds[one] = int(counts.argmax()) if len(counts) else None
    instances, classes = instances.copy(), classes.copy()
    for place in np.ndindex(instances.shape):
        one, kind = int(instances[place]), int(classes[place])
        if VOID in (one, kind) or (one > 0 and kinds[one] != kind):
            instances[place] = classes[place] = VOID
    return instances, classes


@given(st.integers(0, 10**6), st.sampled_from([1, 10**6, 2**31 - 5]))
@settings(max_examples=60, deadline=None)
def test_maps_agree_as_by_hand(seed, step):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 7, 2))
    instances = rng.integers(-1, 4, shape)
    instances = np.where(instances > 1, instances + step - 2, instances).astype(np.int32)
    classes = rng.integers(-1, 4, shape).astype(np.int32)
    for one in np.unique(instances[instances > 0]):  # each object has a class somewhere
        places = np.argwhere(instances == one)
        classes[tuple(places[0])] = 2
    found = agreed_maps("a.png", instances, classes)
    for ours, wanted in zip(found, agreed_by_hand(instances, classes)):
        np.testing.assert_array_equal(ours, wanted)
        assert ours.dtype == np.int32


@pytest.mark.parametrize("highest", [3, 2**31 - 1])
def test_pairs_are_numbered(highest):
    rng = np.random.default_rng(0)
    instances = rng.choice([-1, 0, 2, highest], (20, 30))
    classes = rng.choice([-1, 0, 5], (20, 30))
    codes, pairs, counts = pair_codes(instances, classes)
    np.testing.assert_array_equal(pairs[codes], np.stack([instances, classes], -1))
    np.testing.assert_array_equal(counts, np.bincount(codes.ravel()))
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_maps_that_cannot_agree():
    with pytest.raises(ImageFileError, match=r"^a\.png has no class for the object 7\.$"):
        agreed_maps("a.png", np.array([[7, 1, 0]]), np.array([[0, 1, 0]]))
    with pytest.raises(ImageFileError, match=r"a\.png has instances of 2 x 3 .* classes of 3 x 2"):
        agreed_maps("a.png", np.zeros((2, 3), int), np.zeros((3, 2), int))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["cat", "dog"]', ("cat", "dog")),
        ('["background", "cat"]', ("cat",)),
        ('{"2": "cat", "1": "dog"}', ("dog", "cat")),
        ('{"classes": ["background", "cat"], "images": {}}', ("cat",)),
    ],
)
def test_names_of_each_form(tmp_path, text, names):
    (tmp_path / "a.json").write_text(text)
    assert read_class_names(tmp_path / "a.json") == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "cannot be read as JSON: Expecting value"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("3", "needs a list of names"),
        ('[""]', "needs a list of names"),
        ('["background"]', "has 0 names"),
        ('{"1": "a", "3": "b"}', "names of the classes 1 to 2"),
        ('["a", "b", "a"]', "has the class 'a' twice"),
    ],
)
def test_other_files(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ImageFileError, match=rf"a\.json .*{words}") as caught:
        read_class_names(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_chosen_classes():
    assert class_numbers("VOC", VOC_CLASSES, None).tolist() == [*range(21), -1]
    table = class_numbers("VOC", VOC_CLASSES, ["person", "cat"])
    assert {i: n for i, n in enumerate(table.tolist()) if n} == {15: 1, 8: 2, 21: -1}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["dgo"], "'dgo'"),
        (["cat", "cat"], "'cat' twice"),
        ([], r"class_names=\[\]"),
        ("cat", "class_names='cat'"),
        ([3], r"class_names=\[3\]"),
    ],
)
def test_unknown_class_names(names, words):
    with pytest.raises(ValueError, match=words):
        class_numbers("VOC", VOC_CLASSES, names)
