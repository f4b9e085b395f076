import numpy as np
import pytest

from keras_rpe.metrics import average_precision, matching, matching_dataset


def random_maps(seed, sizes=((6, 7), (5, 5), (1, 9), (8, 3))):
    rng = np.random.default_rng(seed)
    true = [rng.integers(0, 4, size) for size in sizes]
    pred = [np.where(rng.random(t.shape) < 0.2, 0, t) for t in true]
    return true, pred


def test_pools_the_counts_of_all_images():
    true, pred = random_maps(0)
    for threshold in (0.5, 0.7):
        single = [matching(t, p, threshold) for t, p in zip(true, pred)]
        pooled = matching_dataset(true, pred, threshold)
        for field in ("tp", "fp", "fn", "n_true", "n_pred"):
            assert getattr(pooled, field) == sum(getattr(m, field) for m in single)
        assert pooled.sum_iou == pytest.approx(sum(m.sum_iou for m in single))
        assert pooled.threshold == threshold
    assert 0 < pooled.tp < pooled.n_true


def test_generators_and_stacks_serve():
    true, pred = random_maps(1, sizes=((4, 4),) * 3)
    expected = matching_dataset(true, pred, (0.5, 0.8))
    assert matching_dataset(iter(true), (p for p in pred), (0.5, 0.8)) == expected
    assert matching_dataset(np.stack(true), np.stack(pred), (0.5, 0.8)) == expected


def test_average_precision_pooled_and_by_image():
    true = [np.array([[1, 0, 2, 0, 3, 0]]), np.array([[1]])]
    pred = [np.array([[1, 0, 0, 0, 0, 0]]), np.array([[4]])]
    np.testing.assert_allclose(average_precision(true, pred, (0.5, 1.0)), [0.5, 0.5])
    by_image = average_precision(true, pred, (0.5, 1.0), by_image=True)
    np.testing.assert_allclose(by_image, [2 / 3, 2 / 3])
    assert average_precision(true, pred).shape == (5,)


def test_ignore_label_reaches_every_image():
    true, pred = random_maps(2)
    pooled = matching_dataset(true, pred, ignore_label=3)
    assert pooled.n_true == sum(len(set(t.ravel()) - {0, 3}) for t in true)
    values = average_precision(true, pred, (0.5,), ignore_label=3)
    assert values.tolist() == [pooled.average_precision]


@pytest.mark.parametrize("function", [matching_dataset, average_precision])
def test_bad_data_sets_are_refused(function):
    labels = np.array([[1]])
    with pytest.raises(ValueError, match=r"equally many.*only 1 in `labels_pred`"):
        function([labels, labels], [labels])
    with pytest.raises(ValueError, match=r"equally many.*only 0 in `labels_true`"):
        function([], [labels])
    with pytest.raises(ValueError, match=r"at least one label map"):
        function([], [])
    with pytest.raises(ValueError, match=r"`labels_pred` must be a sequence.*a single map"):
        function([labels], labels)
    with pytest.raises(ValueError, match=r"^Image 1: .*same shape"):
        function([labels, labels], [labels, np.array([[1, 2]])])
