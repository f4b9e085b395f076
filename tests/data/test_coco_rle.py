from __future__ import annotations

import numpy as np
import pytest
from coco_layout import compressed, run_lengths
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.data.coco import mask_of_runs, read_runs


def masks(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    mask = rng.random((height, width)) < rng.choice([0.0, 0.02, 0.5, 0.9, 1.0])
    return np.repeat(np.repeat(mask, rng.integers(1, 9), 0), rng.integers(1, 9), 1)


@given(st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_masks_come_back(seed):
    mask = masks(seed)
    runs = run_lengths(mask)
    for counts in (runs, compressed(runs)):
        found = read_runs(counts, mask.size)
        assert found.tolist() == runs
        np.testing.assert_array_equal(mask_of_runs(found, *mask.shape), mask)


@given(st.lists(st.integers(0, 2**28), max_size=12))
@settings(max_examples=80, deadline=None)
def test_runs_of_any_length(runs):
    assert read_runs(compressed(runs), sum(runs)).tolist() == runs


def test_the_same_as_pycocotools():
    api = pytest.importorskip("pycocotools.mask", reason='needs pip install -e ".[coco]"')
    for seed in range(60):
        mask = masks(seed)
        encoded = api.encode(np.asfortranarray(mask.astype(np.uint8)))
        text = encoded["counts"].decode()
        assert compressed(run_lengths(mask)) == text
        found = mask_of_runs(read_runs(text, mask.size), *mask.shape)
        np.testing.assert_array_equal(found, api.decode(encoded))


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30), st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_any_text_is_runs_or_refused(text, pixels):
    try:
        runs = read_runs(text, pixels)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert runs.sum() == pixels
        assert (runs >= 0).all()


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (None, "neither a text nor a list"),
        ([1, 2.0], "neither a text nor a list"),
        ([1, True], "neither a text nor a list"),
        ({"a": 1}, "neither a text nor a list"),
        ([-1, 11], "negative or longer"),
        ([10**30], "negative or longer"),
        ([2**63, 1], "negative or longer"),
        ([3, 4], "cover 7 pixels, but the mask has 10"),
        ([], "cover 0 pixels"),
        ("", "cover 0 pixels"),
        ("12é", "characters"),
        ("1 2", "characters"),
        ("1p", "characters"),
        ("5P", "cut short"),
        ("P" * 7 + "1", "too large"),
        ("P" * 10_000, "cut short"),
        ("?", "negative or longer"),
        ("52", "cover 7 pixels"),
    ],
)
def test_damaged_runs(counts, words):
    with pytest.raises(ValueError, match=words):
        read_runs(counts, 10)
