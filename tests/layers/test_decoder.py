import numpy as np
import pytest
from harness import run_layer_test
from skimage.draw import disk

from keras_rpe.layers import InstanceDecoder
from keras_rpe.metrics import matching


def _scene(side: int = 64, step: int = 8, groups: int = 5) -> tuple[np.ndarray, ...]:
    """Disks on a grid, so close that many touch; each embedding is used many times."""
    rng = np.random.default_rng(0)
    labels = np.zeros((side, side), int)
    x = np.zeros((side, side, groups), "float32")
    count = 0
    for i, row in enumerate(range(step // 2, side, step)):
        for j, column in enumerate(range(step // 2, side, step)):
            count += 1
            rows, columns = disk((row, column), step / 2 + 0.4, shape=labels.shape)
            labels[rows, columns] = count
            x[rows, columns] = np.eye(groups)[(i + 2 * j) % groups]
    x += 0.02 * rng.normal(size=x.shape)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return x[None], labels, (labels > 0)[None].astype("float32") * 0.8


def test_harness(tmp_path) -> None:
    x, _, scores = _scene(16)
    config = {"min_area": 6, "fragment_area": 9, "max_instances": 20, "similarity_threshold": 0.9}
    config |= {"score_threshold": 0.6}
    run_layer_test(
        InstanceDecoder,
        config,
        [x, scores],
        tmp_path,
        policies=("mixed_float16",),
        trains=False,
    )


def test_hundreds_of_touching_instances_with_few_embeddings() -> None:
    x, labels, scores = _scene(160)
    result = InstanceDecoder()(x, scores)
    match = matching(labels, np.asarray(result["labels"])[0], threshold=0.9)
    assert (match.tp, match.fp, match.fn) == (400, 0, 0)
    assert int(result["num_instances"][0]) == 400
    np.testing.assert_allclose(result["scores"][0, :400], 0.8, atol=1e-6)
    assert not np.asarray(result["scores"])[0, 400:].any()


def test_specks_are_dropped_and_seams_are_filled() -> None:
    x = np.zeros((1, 20, 20, 3), "float32")
    x[:, :, :9, 0], x[:, :, 10:, 1], x[:, :, 9, 2] = 1, 1, 1
    scores = np.ones((1, 20, 20), "float32")
    scores[0, 10:] = 0
    scores[0, 15:18, 3:6] = 1  # 9 pixels
    result = InstanceDecoder(min_area=15)(x, scores)
    labels = np.asarray(result["labels"])[0]
    assert int(result["num_instances"][0]) == 2
    assert (labels[:10] > 0).all()
    assert not labels[10:].any()
    assert int(InstanceDecoder(min_area=9)(x, scores)["num_instances"][0]) == 4


def test_instances_of_a_low_score_are_dropped() -> None:
    x, _, scores = _scene(32, step=8)
    scores[:, :8] *= 0.7  # 0.56 in the first of four rows of instances
    two = np.stack([0.75 * scores, 0.25 * scores], axis=-1)
    for given, rest, one in ((0.55, 16, scores), (0.6, 12, scores), (0.65, 0, two), (0.5, 12, two)):
        labels = np.asarray(InstanceDecoder(score_threshold=given)(x, one)["labels"])[0]
        assert labels.max() == rest, "the score is that of the class"
    assert not labels[:8].any()
    result = InstanceDecoder()(x, two, score_threshold=0.5)
    assert int(result["num_instances"][0]) == 12
    assert np.asarray(result["scores"])[0, :12] == pytest.approx(0.6)


def test_a_small_component_alone_is_an_instance_and_beside_another_a_fragment() -> None:
    x = np.zeros((1, 20, 20, 2), "float32")
    x[..., 0] = 1
    x[:, 2:5, 2:5] = [0, 1]  # 9 pixels amid a larger component
    x[:, 15:18, 15:18] = [0, 1]  # 9 pixels alone
    scores = np.zeros((1, 20, 20), "float32")
    scores[0, :10, :10] = scores[0, 15:18, 15:18] = 1
    for arguments, count in (
        ({"min_area": 5}, 3),
        ({"min_area": 5, "fragment_area": 10}, 2),
        ({"min_area": 10, "fragment_area": 10}, 1),
        ({"min_area": 10}, 1),
    ):
        labels = np.asarray(InstanceDecoder(**arguments)(x, scores)["labels"])[0]
        assert labels.max() == count, arguments
        if count < 3:
            assert len(np.unique(labels[:10, :10])) == 1, "the fragment joins"
    given = InstanceDecoder(min_area=5)(x, scores, fragment_area=10)
    assert int(given["num_instances"][0]) == 2


def test_embeddings_at_a_fraction_of_the_resolution() -> None:
    x, labels, scores = _scene(96, step=16)
    result = InstanceDecoder()(x[:, 1::2, 1::2], scores)
    match = matching(labels, np.asarray(result["labels"])[0], threshold=0.8)
    assert (match.tp, match.fp, match.fn) == (36, 0, 0)
    batch = InstanceDecoder()(np.repeat(x[:, 1::2, 1::2], 3, 0), np.repeat(scores, 3, 0))
    for name, value in batch.items():
        for k in range(3):
            np.testing.assert_allclose(value[k], result[name][0], atol=1e-6, err_msg=name)


def test_classes_are_voted_inside_the_mask() -> None:
    x, _, _ = _scene(16, step=8)
    scores = np.zeros((1, 16, 16, 3), "float32")
    scores[0, :, :8, 1] = scores[0, :, 8:, 2] = 0.9
    scores[0, :2, :, 0] = 1.0
    scores[0, :2, :, 1:] = 0.0
    result = InstanceDecoder(similarity_threshold=0.9)(x, scores)
    n = int(result["num_instances"][0])
    classes = np.asarray(result["classes"])[0]
    boxes = np.asarray(result["boxes"])[0, :n]
    assert n == 4
    assert [2 if box[3] <= 9 else 3 for box in boxes] == classes[:n].tolist()
    assert not classes[n:].any()
    labels = np.asarray(result["labels"])[0]
    for k in range(n):
        expected = scores[0][labels == k + 1].mean(axis=0)[classes[k] - 1]
        assert float(result["scores"][0, k]) == pytest.approx(expected, abs=1e-6)


def test_no_instance_and_overflow() -> None:
    x, _, scores = _scene(32)
    nothing = InstanceDecoder()(x, 0 * scores)
    assert not any(np.asarray(value).any() for value in nothing.values())
    scores[0, :8] *= 0.5  # The objects of the first row are the least certain.
    all_found = InstanceDecoder(0.2)(x, scores)
    for few in (InstanceDecoder(0.2, max_instances=3), InstanceDecoder(0.2)):
        found = few(x, scores, max_instances=3)
        labels = np.asarray(found["labels"])
        assert int(found["num_instances"][0]) == labels.max() == 16
        np.testing.assert_array_equal(labels > 0, np.asarray(all_found["labels"]) > 0)
        assert found["scores"].shape == (1, 3)
        np.testing.assert_allclose(found["scores"], 0.8, atol=1e-6)
        assert (np.asarray(found["boxes"])[0, :, 0] >= 7).all()


def test_labels_at_another_scale_are_smooth_and_areas_those_of_the_scores() -> None:
    rows, columns = np.mgrid[:32, :32]
    fine = np.mgrid[:128, :128] / 4.0 - 0.375  # The centers of pixels of a fourth.
    x = np.stack([columns < rows, columns >= rows], -1).astype("float32")[None]

    def disc(row, column):
        return np.hypot(row - 15.5, column - 15.5)

    scores = np.clip(12.5 - disc(rows, columns), 0, 1).astype("float32")[None]
    decoder = InstanceDecoder(min_area=200)
    small = decoder(x, scores)
    found = decoder(x, scores, size=(128, 128), step=np.array([0.25], "float32"))
    assert int(small["num_instances"][0]) == int(found["num_instances"][0]) == 2
    labels = np.asarray(found["labels"])[0]
    truth = np.where(disc(*fine) < 12, np.where(fine[1] < fine[0], 1, 2), 0)
    both = [np.where(labels == k, 1, 0) for k in (1, 2)]
    for mask in (truth == 1, truth == 2):
        iou = max((mask & (one > 0)).sum() / (mask | (one > 0)).sum() for one in both)
        assert iou > 0.95
    np.testing.assert_allclose(found["boxes"][0, :2] / 4, small["boxes"][0, :2], atol=1.0)
    none = decoder(x, scores, min_area=300, size=(128, 128), step=np.array([0.25], "float32"))
    assert int(none["num_instances"][0]) == 0


def test_lines_of_one_pixel_at_half_the_resolution() -> None:
    scores = np.zeros((1, 40, 40), "float32")
    scores[0, 6:30, 10], scores[0, 6:30, 21], scores[0, 35, 5:30] = 1, 1, 1
    x = np.zeros((1, 20, 20, 2), "float32")
    x[..., 0] = 1
    result = InstanceDecoder(min_area=10)(x, scores)
    assert int(result["num_instances"][0]) == 3
    np.testing.assert_array_equal(np.asarray(result["labels"]) > 0, scores > 0)


def test_no_pixel_of_a_fragment_is_left() -> None:
    x = np.zeros((1, 4, 40, 3), "float32")
    x[:, :, :20, 0] = 1
    for column in range(20, 40):  # Fragments of four pixels, each unlike its neighbors.
        x[:, :, column, 1 + column % 2] = 1
    labels = np.asarray(InstanceDecoder(min_area=8)(x, np.ones((1, 4, 40), "float32"))["labels"])
    assert (labels == 1).all()


def test_a_region_is_linked_by_its_own_pixels_only() -> None:
    x = np.zeros((1, 6, 8, 2), "float32")
    x[..., 0] = 1
    scores = np.ones((1, 6, 8), "float32")
    scores[0, 2:4, :6] = 0  # Two bars that meet on the right.
    region = np.zeros((1, 6, 8), bool)
    region[:, :, :6] = True
    decoder = InstanceDecoder(min_area=0, fragment_area=0)
    assert int(decoder(x, scores)["num_instances"][0]) == 1
    result = {k: np.asarray(v) for k, v in decoder(x, scores, region=region).items()}
    labels = result["labels"][0]
    np.testing.assert_array_equal(labels, result["cells"][0])
    upper, lower = labels[0, 0], labels[5, 0]
    assert upper != lower
    assert (labels[:2, :6] == upper).all()
    assert (labels[4:, :6] == lower).all()
    # Pixels beside the region go to it, or stand for themselves where they are not alike;
    # further ones are no instances.
    assert (labels[[0, 1], 6] == upper).all()
    assert (labels[[4, 5], 6] == lower).all()
    assert not labels[:, 7].any()
    x[0, 0, 6] = 0, 1
    labels = np.asarray(decoder(x, scores, region=region)["labels"])[0]
    assert labels[0, 6] not in (0, labels[0, 0])


def test_wrong_arguments() -> None:
    for wrong in (
        {"foreground_threshold": 2},
        {"similarity_threshold": -1},
        {"score_threshold": 1.5},
        {"min_area": -1},
        {"fragment_area": -1},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must .* Received: "):
            InstanceDecoder(**wrong)
    with pytest.raises(ValueError, match="`max_instances` must"):
        InstanceDecoder(max_instances=0)
    with pytest.raises(ValueError, match="InstanceDecoder takes embeddings"):
        InstanceDecoder()(np.zeros((2, 3, 4), "float32"), np.zeros((2, 3), "float32"))
