import matplotlib
import numpy as np
import pytest

from keras_rpe.visualization import loss_per_loop

# The plot of a picture of 640 × 400: what is left of it at its sides, and below.
LEFT, RIGHT, BOTTOM = 62, 132, 46


def heights(picture: np.ndarray, position: float) -> np.ndarray:
    """How high above the axis each column of the plot has the colour of a loop; NaN: nowhere."""
    color = 255 * np.array(matplotlib.colormaps["plasma"](0.05 + 0.78 * position)[:3])
    plot = picture[:, LEFT + 3 : picture.shape[1] - RIGHT - 3].astype(int)
    same = np.abs(plot - color).max(axis=-1) < 12
    rows = picture.shape[0] - BOTTOM - np.arange(picture.shape[0])[:, None] - 0.5
    with np.errstate(invalid="ignore"):
        return (same * rows).sum(axis=0) / np.where(same.any(axis=0), same.sum(axis=0), np.nan)


def test_lines_are_as_high_as_their_losses():
    picture = loss_per_loop({"embedding_loss": [0.4] * 40, "shift_1_loss": [0.1] * 40})
    assert picture.shape == (400, 640, 3)
    assert picture.dtype == np.uint8
    before, after = np.nanmedian(heights(picture, 0)), np.nanmedian(heights(picture, 1))
    # The axis begins at 0.
    assert before / after == pytest.approx(4, rel=0.03)


def test_validation_is_dashed():
    picture = loss_per_loop({"embedding_loss": [0.4] * 40, "val_shift_1_loss": [0.1] * 40})
    solid, dashed = (np.isfinite(heights(picture, position)).mean() for position in (0, 1))
    assert solid > 0.85
    assert 0.4 < dashed < 0.8 * solid


def test_a_logarithmic_axis():
    losses = {f"shift_{k}_loss": [value] * 40 for k, value in enumerate((1.0, 0.1, 0.01), 1)}
    picture = loss_per_loop(losses, log_scale=True)
    high, middle, low = (np.nanmedian(heights(picture, position)) for position in (0, 0.5, 1))
    assert high - middle == pytest.approx(middle - low, abs=2)


def test_what_is_not_finite_leaves_a_gap():
    whole, broken = np.full(60, 0.4), np.full(60, 0.4)
    broken[20:40] = np.nan, *[np.inf] * 19
    shown = [
        np.isfinite(heights(loss_per_loop({"embedding_loss": x}), 0)).mean()
        for x in (whole, broken)
    ]
    assert shown[1] / shown[0] == pytest.approx(2 / 3, abs=0.05)


def test_few_epochs_are_dots_and_one_is_seen():
    picture = loss_per_loop({"embedding_loss": [0.4]}, width=400, height=240)
    assert picture.shape == (240, 400, 3)
    assert 3 <= np.isfinite(heights(picture, 0)).sum() <= 6


def test_negative_losses_are_in_the_plot():
    seen = heights(loss_per_loop({"embedding_loss": [-0.5] * 30, "shift_1_loss": [1.0] * 30}), 0)
    assert 0 < np.nanmedian(seen) < 60


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"width": 319}, "width"),
        ({"height": 199}, "height"),
        ({"height": 300.0}, "height"),
        ({"width": 4001}, "width"),
    ],
)
def test_refuses(options, word):
    with pytest.raises(ValueError, match=rf"`{word}` must .*Received"):
        loss_per_loop({"embedding_loss": [1.0]}, **options)


def test_a_logarithmic_axis_needs_a_positive_loss():
    with pytest.raises(ValueError, match=r"`history` must hold a positive loss.*Received"):
        loss_per_loop({"embedding_loss": [0.0, -1.0]}, log_scale=True)
