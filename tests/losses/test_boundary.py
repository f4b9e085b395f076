import numpy as np
import pytest

from keras_rpe.losses import BoundaryCrossEntropy, BoundaryPairLoss, CosineMarginLoss

RNG = np.random.default_rng(0)


def shares_of(height: int = 12, width: int = 16) -> np.ndarray:
    """Lines of different shares, and void pixels."""
    shares = np.zeros((2, height, width), "float32")
    shares[:, 3], shares[:, :, 5], shares[:, :, 6], shares[:, -1] = 1.0, 0.5, 0.2, -1.0
    return shares


def test_cross_entropy_equals_numpy() -> None:
    shares, logits = shares_of(), RNG.normal(size=(2, 12, 16, 3))
    result = BoundaryCrossEntropy(0.4, 1.3, reduction=None)(shares, logits.astype("float32"))
    for k in range(2):
        positive, negative = shares[k] >= 0.4, shares[k] == 0
        expected = 0.0
        for m in range(3):
            p = 1 / (1 + np.exp(-logits[k, ..., m]))
            share = positive.sum() / (positive.sum() + negative.sum())
            parts = (1 - share) * -np.log(p[positive]).sum()
            parts += 1.3 * share * -np.log(1 - p[negative]).sum()
            weights = (1 - share) * positive.sum() + 1.3 * share * negative.sum()
            expected += parts / weights
        np.testing.assert_allclose(result[k], expected, rtol=1e-4)


def test_cross_entropy_leaves_void_out_and_survives_extremes() -> None:
    shares = shares_of()
    logits = np.full((2, 12, 16, 1), 1e4, "float32")
    logits[shares == 0] = -1e4
    assert float(BoundaryCrossEntropy()(shares, logits)) == 0.0
    assert np.isfinite(float(BoundaryCrossEntropy()(shares, -logits)))
    for empty in (np.zeros_like(shares), np.ones_like(shares), -np.ones_like(shares)):
        assert float(BoundaryCrossEntropy()(empty, logits)) == 0.0


def test_pair_loss_equals_the_margin_loss_on_cells() -> None:
    shares = shares_of(8, 8)
    # Four cells a side of two pixels: the highest pixel decides, and void ones count neither way.
    groups = np.array([[0, 0, 1, 2], [1, 1, 1, 1], [0, 0, 1, 2], [2, 2, 1, 2]])
    x = RNG.normal(size=(1, 4, 4, 3)).astype("float32")
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    expected = CosineMarginLoss(0.1, num_samples=None, ignore_label=2)(groups[None], x)
    found = BoundaryPairLoss(2, 0.3, 0.1, num_samples=None)(shares[:1], x)
    # Four cells without a boundary and seven with one: all of them are drawn.
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pair_loss_draws_boundaries_as_often_as_the_rest() -> None:
    shares = np.zeros((1, 64, 64), "float32")
    shares[0, 10] = 1.0
    x = np.zeros((1, 64, 64, 3), "float32")
    x[..., 0] = 1.0
    x[0, 10, :, 0] = -1.0
    # One cell of 64 has a boundary: without balance, a draw of 16 has none in most cases.
    same = np.abs(x)
    draws = [float(BoundaryPairLoss(1, num_samples=16, seed=k)(shares, same)) for k in range(20)]
    # All embeddings are equal, so only a draw of both groups costs anything.
    assert min(draws) > 0.4
    assert float(BoundaryPairLoss(1)(shares, x)) == 0.0


def test_one_group_alone_pulls_together() -> None:
    x = np.zeros((1, 4, 4, 3), "float32")
    x[..., 0] = 1.0
    for shares in (np.zeros((1, 8, 8)), np.ones((1, 8, 8)), -np.ones((1, 8, 8))):
        assert float(BoundaryPairLoss(2)(shares.astype("float32"), x)) == 0.0


@pytest.mark.parametrize("size", [(9, 13), (16, 16)])
def test_pair_loss_pads_with_void(size: tuple[int, int]) -> None:
    shares = np.ones((1, *size), "float32")
    x = RNG.normal(size=(1, 4, 4, 3)).astype("float32")
    assert np.isfinite(float(BoundaryPairLoss(4)(shares, x)))


def test_configurations() -> None:
    for loss in (BoundaryCrossEntropy(0.5, 1.2), BoundaryPairLoss(4, 0.5, 0.2, num_samples=9)):
        assert type(loss).from_config(loss.get_config()).get_config() == loss.get_config()
    with pytest.raises(ValueError, match="consensus=0.0"):
        BoundaryCrossEntropy(0.0)
    with pytest.raises(ValueError, match="negative_weight=0.0"):
        BoundaryCrossEntropy(0.3, 0.0)
    with pytest.raises(ValueError, match="stride=0"):
        BoundaryPairLoss(0)
