import numpy as np
import pytest

from keras_rpe.losses import ObjectSizeLoss

TRUTH = np.array([[[4.0, 0.0, -1.0], [6.0, 5.0, 0.0]], [[0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]])


def test_it_is_the_smooth_difference_and_the_entropy_of_the_certainty() -> None:
    guess = np.random.default_rng(0).normal(4, 2, (2, 2, 3, 2)).astype("float32")
    expected = []
    for truth, values in zip(TRUTH, guess):
        sizes, certainties = [], []
        for t, (size, logit) in zip(truth.ravel(), values.reshape(-1, 2)):
            if t >= 0:
                p = 1 / (1 + np.exp(-logit))
                certainties.append(-np.log(p if t > 0 else 1 - p))
            if t > 0:
                off = abs(size - t)
                sizes.append(0.5 * off**2 if off < 1 else off - 0.5)
        expected.append(3 * (np.mean(sizes) if sizes else 0) + np.mean(certainties))
    found = ObjectSizeLoss(size_weight=3.0, reduction=None)(TRUTH, guess)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_is_made_again_from_its_configuration_and_checks_its_weight() -> None:
    again = ObjectSizeLoss.from_config(ObjectSizeLoss(0.5).get_config())
    assert again.size_weight == 0.5
    with pytest.raises(ValueError, match="`size_weight` must"):
        ObjectSizeLoss(-1)
