import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from keras_rpe.data.crops import (
    as_elsewhere,
    cut,
    draw_corner,
    draw_focus,
    labelled_image,
    recolored,
    relabel_pieces,
    shaded,
    turned,
)


def blobs(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Random rectangles with sparse ids; later ones may cut earlier ones in two."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for number in rng.choice([7, 2000, 60000, 2**31 - 1], 6):
        top, left = rng.integers(0, shape)
        height, width = rng.integers(1, 9, 2)
        labels[top : top + height, left : left + width] = number
    return labels


def pieces_one_by_one(labels: np.ndarray) -> np.ndarray:
    out = np.zeros(labels.shape, int)
    for number in np.unique(labels[labels > 0]):
        pieces, _ = ndimage.label(labels == number, np.ones((3, 3)))
        out += np.where(pieces > 0, pieces + out.max(), 0)
    return out


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    links = set(zip(one.ravel().tolist(), other.ravel().tolist()))
    return len(links) == len({a for a, _ in links}) == len({b for _, b in links})


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 20), width=st.integers(1, 20))
def test_pieces_are_numbered_from_one(seed, height, width):
    labels = blobs((height, width), seed)
    pieces = relabel_pieces(labels)
    assert pieces.dtype == np.int32
    assert sorted(set(pieces.ravel()) - {0}) == list(range(1, pieces.max() + 1))
    np.testing.assert_array_equal(pieces > 0, labels > 0)
    assert same_partition(pieces, pieces_one_by_one(labels))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), background=st.booleans(), sparse=st.booleans())
def test_labelled_image_keeps_the_instances(seed, background, sparse):
    labels = blobs((20, 24), seed)
    if not sparse:
        labels = labels % 1000
    if not background:
        labels[labels == 0] = 5
    item = labelled_image(np.zeros((20, 24)), labels)
    assert item.labels.dtype == np.uint16
    np.testing.assert_array_equal(item.labels > 0, labels > 0)
    assert same_partition(item.labels, labels)
    assert len(item.boxes) == item.labels.max() == len(set(labels.ravel()) - {0})
    assert item.boxes == ndimage.find_objects(item.labels.astype(int))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(8, 30), st.integers(8, 30)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    margin=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_cut_equals_padding_then_slicing(seed, shape, size, margin):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (*shape, 3)).astype("uint8")
    item = labelled_image(image, blobs(shape, seed))
    corner = draw_corner(shape, size, rng, draw_focus(item, rng))
    pixels, labels = cut(item, corner, size, margin)
    wanted, wanted_labels = image, item.labels
    for axis in (0, 1):
        assert min(0, shape[axis] - size[axis]) <= corner[axis]
        assert corner[axis] <= max(0, shape[axis] - size[axis])
        far = size[axis] + margin[axis]
        pad = [(far, far) if i == axis else (0, 0) for i in range(3)]
        inside = shape[axis] >= size[axis]
        wanted = np.pad(wanted, pad, "reflect" if inside else "edge")
        wanted_labels = np.pad(wanted_labels, pad[:2], "reflect" if inside else "constant")
        start = corner[axis] - margin[axis] + far
        kept = [slice(None)] * axis + [slice(start, start + size[axis] + 2 * margin[axis])]
        wanted, wanted_labels = wanted[tuple(kept)], wanted_labels[tuple(kept)]
    np.testing.assert_array_equal(pixels, wanted)
    np.testing.assert_array_equal(labels, wanted_labels)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.3])
def test_scaled_crops_are_interpolated(shape, scale):
    rng = np.random.default_rng(0)
    item = labelled_image(rng.integers(0, 255, shape).astype("uint8"), blobs(shape[:2], 0))
    pixels, labels = cut(item, (8, 6), (12, 16), (2, 3), scale)
    places = np.meshgrid(
        8 + (np.arange(-2, 14) + 0.5) * scale - 0.5,
        6 + (np.arange(-3, 19) + 0.5) * scale - 0.5,
        indexing="ij",
    )
    planes = item.image.reshape(*shape[:2], -1).transpose(2, 0, 1).astype(float)
    wanted = [ndimage.map_coordinates(plane, places, order=1) for plane in planes]
    np.testing.assert_allclose(pixels.reshape(16, 22, -1), np.stack(wanted, -1), atol=1e-3)
    assert pixels.dtype == np.float32
    nearest = [np.floor(place + 0.5).astype(int) for place in places]
    np.testing.assert_array_equal(labels, item.labels[tuple(nearest)])


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize("mirror", [False, True])
def test_turned_crops_are_crops_of_the_turned_image(shape, mirror):
    rng = np.random.default_rng(0)
    item = labelled_image(rng.integers(0, 255, shape).astype("uint8"), blobs(shape[:2], 0))
    straight = cut(item, (8, 6), (12, 12), (0, 0))
    for quarter in range(4):
        found = turned(item, (8, 6), (12, 12), quarter * np.pi / 2, mirror)
        for one, other in zip(found, straight):
            back = np.rot90(one, -quarter if mirror else quarter)
            np.testing.assert_allclose(back[:, ::-1] if mirror else back, other, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(angle=st.floats(0, 6.3), scale=st.sampled_from([0.7, 1.0, 1.4]), mirror=st.booleans())
def test_image_and_labels_turn_together(angle, scale, mirror):
    labels = (np.indices((90, 80)).sum(axis=0) // 12 % 2).astype(int)
    item = labelled_image((200 * labels + 20).astype("uint8"), labels)
    pixels, found = turned(item, (20, 18), (30, 26), angle, mirror, scale)
    assert pixels.dtype == np.float32
    assert ((pixels > 120) != (found > 0)).mean() < 0.05
    # Far inside of a large image, nothing is continued.
    assert 0.3 < found.mean() < 0.7
    small = labelled_image(np.full((9, 9), 7, "uint8"), np.ones((9, 9), int))
    pixels, found = turned(small, (-5, -5), (20, 20), angle, mirror)
    np.testing.assert_allclose(pixels, 7, atol=1e-5)
    assert abs(int(found.sum()) - 81) < 12


def test_a_scaled_crop_may_be_larger_than_the_image():
    item = labelled_image(np.full((10, 10), 7, "uint8"), np.ones((10, 10), int))
    pixels, labels = cut(item, (-5, -5), (20, 20), (4, 4), 1.0)
    assert labels.sum() == 100
    pixels, labels = cut(item, (-5, -5), (10, 10), (4, 4), 2.0)
    assert labels.sum() == 25
    np.testing.assert_array_equal(pixels, np.full((18, 18), 7))


def crops_of(labels: np.ndarray, side: int) -> list[np.ndarray]:
    item, rng = labelled_image(np.zeros(labels.shape), labels), np.random.default_rng(0)
    size = (side, side)
    return [
        cut(item, draw_corner(labels.shape, size, rng, draw_focus(item, rng)), size, (0, 0))[1]
        for _ in range(400)
    ]


def test_most_crops_show_an_instance():
    labels = np.zeros((400, 400), int)
    labels[200:204, 100:104] = 9
    crops = crops_of(labels, 32)
    share = np.mean([crop.any() for crop in crops])
    assert 0.85 < share < 0.96
    rows = [np.nonzero(crop)[0].min() for crop in crops if crop.any()]
    assert len(set(rows)) > 10


def test_small_instances_are_drawn_as_often_as_large_ones():
    labels = np.zeros((300, 300), int)
    labels[:120, :120] = 1
    labels[250:252, 250:252] = 2
    assert 0.38 < np.mean([2 in crop for crop in crops_of(labels, 16)]) < 0.53


@pytest.mark.parametrize("highest", [5, 2**31 - 1])
def test_classed_image_keeps_the_meaning_of_each_pixel(highest):
    rng = np.random.default_rng(highest)
    instances = rng.choice([-1, 0, 3, highest], (20, 30))
    classes = np.where(
        instances == -1, -1, np.where(instances > 0, 2, rng.choice([0, 9], (20, 30)))
    )
    item = labelled_image(np.zeros((20, 30)), instances, classes)
    pairs = item.meaning[item.labels]
    np.testing.assert_array_equal(pairs, np.stack([instances, classes], -1))
    assert item.meaning.tolist() == [[0, 0], [3, 2], [highest, 2], [0, 9], [-1, -1]]
    assert item.outside == 4
    for number, box in enumerate(item.boxes, start=1):
        assert box == ndimage.find_objects((item.labels == number).astype(int))[0]
    assert len(item.boxes) == 2
    void = np.full((9, 8), -1)
    nothing, void = (labelled_image(np.zeros((9, 8)), one, one) for one in (0 * void, void))
    assert not nothing.labels.any()
    assert (void.labels == void.outside).all()
    assert nothing.boxes == void.boxes == []
    _, labels = cut(item, (-3, 0), (26, 30), (0, 0))
    assert (labels[:3] == 4).all()
    assert (labels[-3:] == 4).all()


@pytest.mark.parametrize(("change", "low", "high"), [(shaded, -5, 8), (recolored, 0, 255)])
def test_colors_change_within_the_range_of_the_image(change, low, high):
    blocks = np.random.default_rng(0).uniform(low, high, (8, 6, 3))
    image = blocks.repeat(6, axis=0).repeat(6, axis=1).astype("float32")
    given = image.copy()
    results = [change(image, np.random.default_rng(seed)) for seed in range(8)]
    np.testing.assert_array_equal(image, given)
    slack = 1e-4 * (high - low)
    for result in results:
        assert (result.dtype, result.shape) == (np.float32, image.shape)
        assert np.isfinite(result).all()
        assert result.min() >= min(low, 0) - slack
        assert result.max() <= high + slack
        assert np.corrcoef(result.ravel(), image.ravel())[0, 1] > 0.7
        assert not np.allclose(result, image, atol=slack)
    assert len({float(result.mean()) for result in results}) == 8
    np.testing.assert_array_equal(change(image, np.random.default_rng(3)), results[3])


@pytest.mark.parametrize("change", [shaded, recolored])
@pytest.mark.parametrize("value", [0, 100])
def test_gray_stays_gray_and_even_stays_finite(change, value):
    even = np.full((9, 8, 3), value, "float32")
    assert np.isfinite(change(even, np.random.default_rng(0))).all()
    gray = np.repeat(np.random.default_rng(0).uniform(0, 255, (9, 8, 1)), 3, -1).astype("float32")
    assert np.ptp(change(gray, np.random.default_rng(1)), axis=-1).max() < 1e-2


def test_other_microscopes_show_the_same_objects():
    rows, columns = np.mgrid[:64, :64] % 32 - 16
    disc = (rows**2 + columns**2 < 81).astype("float32")
    stained = 240 - disc[..., None] * np.array([120, 180, 60], "float32")
    gray = np.repeat(20 + 200 * disc[..., None], 3, axis=-1)
    for image in (stained, gray, gray * np.float32(257)):
        given = image.copy()
        results = [as_elsewhere(image, np.random.default_rng(seed)) for seed in range(60)]
        np.testing.assert_array_equal(image, given)
        links = []
        for result in results:
            assert (result.dtype, result.shape) == (np.float32, image.shape)
            assert 0 <= result.min() <= result.max() <= image.max() * 1.0001
            links.append(np.corrcoef(result.mean(-1).ravel(), disc.ravel())[0, 1])
        assert np.abs(links).min() > 0.5
        assert min(links) < 0 < max(links)  # Some are inverted.
        assert {bool(np.ptp(result, axis=-1).max() > 2) for result in results} == {True, False}
    even = np.full((9, 8, 3), 7, "float32")
    assert np.isfinite(as_elsewhere(even, np.random.default_rng(0))).all()


def test_saturation_goes_up_and_down():
    image = np.broadcast_to(np.array([180.0, 120, 90], "float32"), (4, 4, 3))
    depth = [np.ptp(recolored(image, np.random.default_rng(seed))[0, 0]) for seed in range(30)]
    assert min(depth) < 70
    assert max(depth) > 120
