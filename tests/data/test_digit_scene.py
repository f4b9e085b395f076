from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_rpe.data.digits import (
    CORNERS,
    DIGIT_COLORS,
    MIN_PIXELS,
    check_scene_arguments,
    digit_scene,
)


def bars() -> list[np.ndarray]:
    image = np.zeros((1, 28, 28), np.uint8)
    image[:, 6:22, 12:16] = 255  # short enough to touch no other
    return [image] * 10


def specks(seed: int, density: float) -> list[np.ndarray]:
    """Two images of scattered pixels a digit, few enough for some to vanish below others."""
    rng = np.random.default_rng(seed)
    gray = rng.integers(0, 256, (10, 2, 28, 28))
    return list(np.where(rng.random(gray.shape) < density, gray, 0).astype(np.uint8))


def reference(
    rng: np.random.Generator,
    images: list[np.ndarray],
    fewest: int,
    most: int,
    share: float,
    threshold: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint from back to front, pixel by pixel, and again until no digit is too small."""
    count = rng.integers(fewest, most + 1)
    one_class = rng.random() < share
    corners = [CORNERS[k] for k in rng.permutation(9)[:count]]
    digits = rng.integers(10, size=count)
    digits = [digits[0]] * count if one_class and count else list(digits)
    chosen = [
        images[digit][int(share_of * len(images[digit]))]
        for digit, share_of in zip(digits, rng.random(count))
    ]

    def paint(kept: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.zeros((64, 64, 3), np.uint8)
        instances, classes = np.zeros((64, 64), int), np.zeros((64, 64), int)
        for number, k in enumerate(kept, start=1):
            for row, column in zip(*np.nonzero(chosen[k] > threshold)):
                at = (corners[k][0] + row, corners[k][1] + column)
                color = np.array(DIGIT_COLORS[digits[k]])
                image[at] = np.floor(int(chosen[k][row, column]) * color + 0.5)
                instances[at] = number
                classes[at] = digits[k] or 10
        return image, instances, classes

    kept = list(range(count))
    while True:
        scene = paint(kept)
        sizes = np.bincount(scene[1].ravel(), minlength=len(kept) + 1)[1:]
        small = [k for k, size in zip(kept, sizes) if size < MIN_PIXELS]
        if not small:
            return scene
        kept.remove(small[-1])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.01, 0.02, 0.03, 0.1, 0.6]),
    st.tuples(st.integers(0, 9), st.integers(1, 9)).map(sorted),
    st.sampled_from([0.0, 1 / 3, 1.0]),
    st.sampled_from([0, 1, 100, 254]),
)
def test_scenes_are_those_of_painting_one_over_the_other(seed, density, counts, share, threshold):
    images = specks(seed, density)
    fewest, most = counts
    scene = digit_scene(
        np.random.default_rng(seed),
        images,
        min_digits=fewest,
        max_digits=most,
        same_class_share=share,
        threshold=threshold,
    )
    expected = reference(np.random.default_rng(seed), images, fewest, most, share, threshold)
    assert [one.dtype.name for one in scene] == ["uint8", "int32", "int32"]
    for one, other in zip(scene, expected):
        np.testing.assert_array_equal(one, other)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.1, 0.6]), st.sampled_from([0, 100]))
def test_ids_have_no_gaps_and_each_digit_its_class_and_color(seed, density, threshold):
    image, instances, classes = digit_scene(
        np.random.default_rng(seed), specks(seed, density), threshold=threshold
    )
    sizes = np.bincount(instances.ravel())[1:]
    assert (sizes >= MIN_PIXELS).all()
    np.testing.assert_array_equal(instances > 0, classes > 0)
    np.testing.assert_array_equal(instances > 0, image.max(axis=-1) > threshold)
    assert not image[instances == 0].any()
    for number in range(1, len(sizes) + 1):
        (one,) = np.unique(classes[instances == number])
        assert 1 <= one <= 10


def test_a_digit_that_is_nearly_covered_takes_no_id_and_no_pixel():
    hidden = np.zeros((1, 28, 28), np.uint8)
    hidden[:, 18:28, 18:28] = 200
    _, instances, _ = digit_scene(np.random.default_rng(0), [hidden] * 10, min_digits=9)
    assert np.bincount(instances.ravel())[1:].tolist() == [100] * 9  # They do not overlap.
    over = np.full((1, 28, 28), 255, np.uint8)
    pairs = [hidden] * 5 + [over] * 5
    found = set()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        image, instances, classes = digit_scene(rng, pairs, min_digits=9, same_class_share=0.0)
        sizes = np.bincount(instances.ravel())[1:]
        assert sizes.min() >= MIN_PIXELS
        assert set(np.unique(image.max(axis=-1))) <= {0, 200, 255}
        np.testing.assert_array_equal(instances > 0, classes > 0)
        found.add(len(sizes))
    assert max(found) == 9
    assert min(found) < 9


def test_gray_values_up_to_the_threshold_are_neither_drawn_nor_labelled():
    ramp = np.zeros((1, 28, 28), np.uint8)
    ramp[0, :16, :16] = np.arange(256).reshape(16, 16)
    options = {"min_digits": 1, "max_digits": 1}
    for threshold in (0, 99, 245):
        image, instances, _ = digit_scene(
            np.random.default_rng(0), [ramp] * 10, threshold=threshold, **options
        )
        assert instances.sum() == 255 - threshold
        assert image.max(axis=-1)[instances > 0].min() == threshold + 1
        assert not image[instances == 0].any()
    # Nine pixels are too few for a digit.
    image, instances, _ = digit_scene(
        np.random.default_rng(0), [ramp] * 10, threshold=246, **options
    )
    assert not image.any()
    assert not instances.any()


def test_numbers_classes_and_places_are_uniform():
    counts, same, classes, places = [], [], [], []
    for seed in range(3000):
        _, instances, kinds = digit_scene(np.random.default_rng([7, seed]), bars())
        numbers = range(1, instances.max() + 1)
        counts.append(len(numbers))
        one_each = [int(kinds[instances == number][0]) for number in numbers]
        if len(numbers) > 3:
            same.append(len(set(one_each)) == 1)
        classes += one_each[:1]
        places += [int(np.flatnonzero(instances == number)[0]) for number in numbers][:1]
    assert stats.chisquare(np.bincount(counts, minlength=10)).pvalue > 0.001
    assert stats.chisquare(np.bincount(classes, minlength=11)[1:]).pvalue > 0.001
    corners = {64 * (top + 6) + left + 12 for top, left in CORNERS}
    assert set(places) == corners
    assert stats.chisquare(np.unique(places, return_counts=True)[1]).pvalue > 0.001
    # By chance, one in a thousand of the others is of one class.
    assert stats.binomtest(sum(same), len(same), 1 / 3 + 2 / 3000).pvalue > 0.001


def test_all_images_of_a_class_are_drawn_and_the_state_decides():
    images = [np.repeat(np.arange(50, 250, 10, dtype=np.uint8), 784).reshape(20, 28, 28)] * 10
    rng = np.random.default_rng(0)
    drawn = [digit_scene(rng, images, min_digits=1, max_digits=1)[0].max() for _ in range(400)]
    assert set(drawn) == set(range(50, 250, 10))
    again = np.random.default_rng(0)
    assert drawn[:9] == [
        digit_scene(again, images, min_digits=1, max_digits=1)[0].max() for _ in range(9)
    ]


def test_colors_classes_and_order_are_the_authors(golden_root):
    golden = np.load(golden_root / "mean_shift_digits_a.npz")
    image, instances, classes = (golden[name] for name in ("image", "instances", "classes"))
    assert image.dtype == np.uint8
    # What this module makes of each gray value in each class.
    ramp = np.zeros((1, 28, 28), np.uint8)
    ramp[0, :16, :16] = np.arange(256).reshape(16, 16)
    shades = np.zeros((11, 256, 3), np.uint8)
    for seed in range(100):
        ours, _, kinds = digit_scene(
            np.random.default_rng(seed), [ramp] * 10, min_digits=1, max_digits=1
        )
        shades[kinds.max(), ours.max(axis=-1)] = ours
    assert (shades[1:].max(axis=-1) == np.arange(256)).all()
    # The largest part of each color is 1, so that the largest part of a pixel is its gray value.
    np.testing.assert_array_equal(shades[classes, image.max(axis=-1)], image)
    np.testing.assert_array_equal(instances > 0, image.max(axis=-1) > 0)
    for one in instances:
        np.testing.assert_array_equal(np.unique(one), np.arange(one.max() + 1))
        for number in range(1, one.max() + 1):
            rows, columns = np.nonzero(one == number)
            assert any(
                top <= rows.min() <= rows.max() < top + 28
                and left <= columns.min() <= columns.max() < left + 28
                for top, left in CORNERS
            )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_digits": 0}, "max_digits needs a whole number from 1 to 9"),
        ({"max_digits": 10}, "max_digits needs"),
        ({"max_digits": -1}, "max_digits needs"),
        ({"max_digits": True}, "max_digits needs"),
        ({"max_digits": 2.0}, "max_digits needs"),
        ({"min_digits": -1}, "min_digits needs a whole number from 0 to max_digits"),
        ({"min_digits": 5, "max_digits": 4}, "min_digits needs"),
        ({"min_digits": None}, "min_digits needs"),
        ({"same_class_share": 1.1}, "same_class_share needs a number from 0 to 1"),
        ({"same_class_share": float("nan")}, "same_class_share needs"),
        ({"same_class_share": "all"}, "same_class_share needs"),
        ({"same_class_share": True}, "same_class_share needs"),
        ({"threshold": 255}, "threshold needs a whole number from 0 to 254"),
        ({"threshold": -1}, "threshold needs"),
        ({"threshold": 0.5}, "threshold needs"),
    ],
)
def test_arguments_are_checked(options, reason):
    with pytest.raises(ValueError, match=f"^{reason}.* Received: "):
        digit_scene(np.random.default_rng(0), bars(), **options)
    settings_ = {"min_digits": 0, "max_digits": 9, "same_class_share": 0.5, "threshold": 0}
    with pytest.raises(ValueError, match=f"^{reason}"):
        check_scene_arguments(**settings_ | options)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 28, 28), np.uint8),
        np.zeros((2, 28, 27), np.uint8),
        np.zeros((28, 28), np.uint8),
        np.zeros((2, 28, 28), np.float32),
        [[0]],
    ],
)
def test_images_are_checked(wrong):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^images_by_digit needs arrays .* for the digit 3$"):
        digit_scene(rng, [*bars()[:3], wrong, *bars()[4:]])
    with pytest.raises(ValueError, match="^images_by_digit needs a list of 10 arrays"):
        digit_scene(rng, bars()[:9])
    with pytest.raises(ValueError, match="^images_by_digit needs a list of 10 arrays"):
        digit_scene(rng, np.zeros((10, 1, 28, 28), np.uint8))
