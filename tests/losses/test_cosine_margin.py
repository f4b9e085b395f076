import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pair_loss_by_loops, unit_points

from keras_rpe.losses import CosineMarginLoss

X = unit_points((2, 6, 8, 4)).astype("float32")


Y = np.random.default_rng(0).integers(0, 4, (2, 6, 8))


@settings(max_examples=10, deadline=None)
@given(st.floats(0, 0.9), st.sampled_from([1, 2]), st.integers(0, 10**6))
def test_equals_loops_over_pairs(margin: float, power: int, seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 3, (1, 3, 4))
    x = unit_points((1, 3, 4, 3), seed=seed)
    loss = CosineMarginLoss(margin, 0.5, 2.0, power, num_samples=None, dtype="float64")
    positive, negative = pair_loss_by_loops(y.ravel(), x.reshape(12, 3), margin, power)
    np.testing.assert_allclose(float(loss(y, x)), 0.5 * positive + 2 * negative, atol=1e-6)


@pytest.mark.parametrize("samples", [None, 12, 100])
def test_a_neighborhood_is_measured_in_cells(samples: int | None) -> None:
    y = np.random.default_rng(0).integers(0, 3, (1, 3, 4))
    x = unit_points((1, 3, 4, 3))
    loss = CosineMarginLoss(num_samples=samples, neighborhood=1.5, dtype="float64")
    terms = pair_loss_by_loops(
        y.ravel(),
        x.reshape(12, 3),
        0.5,
        positions=np.argwhere(np.ones((3, 4))),
        neighborhood=1.5,
    )
    np.testing.assert_allclose(float(loss(y, x)), sum(terms), atol=1e-6)
    # Labels of a finer map do not change what is near.
    fine = y.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(float(loss(fine, x)), sum(terms), atol=1e-6)


def test_what_is_far_apart_may_be_alike() -> None:
    y = np.zeros((1, 1, 40), int)
    y[..., 20:] = 1
    x = np.ones((1, 1, 40, 2), "float32") / np.sqrt(2).astype("float32")
    y[..., 5:35] = 255  # void between the two
    loss = CosineMarginLoss(num_samples=None, ignore_label=255, neighborhood=10.0)
    np.testing.assert_allclose(float(loss(y, x)), 0.0, atol=1e-6)
    assert float(CosineMarginLoss(num_samples=None, ignore_label=255)(y, x)) > 0.2


def test_few_neighbors_weigh_little() -> None:
    y = np.repeat(np.arange(8), 40)[None, None]
    x = np.ones((1, 1, 320, 2), "float32") / np.sqrt(2).astype("float32")
    beside = CosineMarginLoss(num_samples=None, neighborhood=60.0)
    hardly = CosineMarginLoss(num_samples=None, neighborhood=1.0)  # The two at each border.
    assert float(beside(y, x)) == pytest.approx(0.5, abs=1e-6)
    assert float(hardly(y, x)) < 0.01


def test_images_without_pairs_have_no_part_in_the_mean() -> None:
    y = np.concatenate([Y, np.full_like(Y, 255)])
    x = np.concatenate([X, X])
    for options in ({}, {"neighborhood": 3.0}):
        loss = CosineMarginLoss(num_samples=None, ignore_label=255, **options)
        assert float(loss(y, x)) == pytest.approx(float(loss(Y, X)), rel=1e-6)
        assert float(loss(y[2:], X)) == 0


def test_a_sample_is_without_replacement_and_fresh() -> None:
    loss = CosineMarginLoss(num_samples=48, reduction=None)
    everything = CosineMarginLoss(num_samples=None, reduction=None)(Y, X)
    # 48 of 48 pixels without replacement are all of them, and so are 200 of 48.
    np.testing.assert_allclose(loss(Y, X), everything, atol=1e-6)
    np.testing.assert_allclose(
        CosineMarginLoss(num_samples=200, reduction=None)(Y, X), everything, atol=1e-6
    )
    few = CosineMarginLoss(num_samples=10, reduction=None, seed=1)
    first, second = np.asarray(few(Y, X)), np.asarray(few(Y, X))
    assert np.abs(first - second).min() > 1e-6
    again = CosineMarginLoss(num_samples=10, reduction=None, seed=1)
    np.testing.assert_array_equal(again(Y, X), first)
    twins = few(np.stack([Y[0], Y[0]]), np.stack([X[0], X[0]]))
    assert abs(float(twins[0] - twins[1])) > 1e-6, "each image has a sample of its own"


def test_void_pixels_do_not_count() -> None:
    y = Y.copy()
    y[:, :3] = 255
    moved = X.copy()
    moved[:, :3] = unit_points((2, 3, 8, 4), seed=9)
    for samples in (None, 40):
        loss = CosineMarginLoss(ignore_label=255, num_samples=samples)
        np.testing.assert_allclose(float(loss(y, X)), float(loss(y, moved)), atol=1e-6)
    assert float(loss(np.full_like(Y, 255), X)) == 0.0


@pytest.mark.parametrize("factor", [3])
def test_labels_at_a_whole_multiple_of_the_resolution(factor: int) -> None:
    fine = Y.repeat(factor, axis=1).repeat(factor, axis=2)
    loss = CosineMarginLoss(num_samples=None)
    np.testing.assert_allclose(float(loss(fine, X)), float(loss(Y, X)), rtol=1e-6)
    np.testing.assert_allclose(float(loss(fine[..., None], X)), float(loss(Y, X)), rtol=1e-6)


@pytest.mark.parametrize("labels", [0, 1])
def test_no_instance_and_one_instance(labels: int) -> None:
    y = np.zeros_like(Y)
    y[0, 2:4, 2:4] = labels
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = CosineMarginLoss(num_samples=30)(y, x)
    assert np.isfinite(float(loss))
    assert np.isfinite(np.asarray(tape.gradient(loss, x))).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_precision_and_xla(dtype: str) -> None:
    x = tf.cast(X, dtype)
    loss = CosineMarginLoss(num_samples=None)
    expected = float(CosineMarginLoss(num_samples=None)(Y, X))
    np.testing.assert_allclose(float(loss(Y, x)), expected, atol=1e-2)
    signature = [
        tf.TensorSpec((None, None, None), "int64"),
        tf.TensorSpec((None, None, None, 4), dtype),
    ]
    for samples in (None, 20):
        loss = CosineMarginLoss(num_samples=samples)
        compiled = tf.function(loss, input_signature=signature, jit_compile=True)
        assert abs(float(compiled(Y, x)) - expected) < (1e-2 if samples is None else 0.2)


def test_large_ids_survive_the_cast_of_keras() -> None:
    y = 2**24 - Y
    loss = CosineMarginLoss(num_samples=None)
    np.testing.assert_allclose(float(loss(y, X)), float(loss(Y, X)), rtol=1e-6)


def test_serialises() -> None:
    loss = CosineMarginLoss(0.1, 2.0, 5.0, 2, 77, 255, seed=4)
    clone = keras.losses.deserialize(keras.losses.serialize(loss))
    assert clone.get_config() == loss.get_config()
    assert keras.saving.get_registered_name(CosineMarginLoss) == "keras_rpe>CosineMarginLoss"


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": 1.0},
        {"margin": -0.1},
        {"positive_weight": -1.0},
        {"negative_weight": float("nan")},
        {"power": 3},
        {"num_samples": 1},
    ],
)
def test_wrong_arguments(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must .* Received: "):
        CosineMarginLoss(**wrong)


@pytest.mark.parametrize("shape", [(2, 7, 8), (2, 12, 8), (2, 6), (2, 6, 8, 3)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`y_true` must be instance maps"):
        CosineMarginLoss()(np.zeros(shape, int), X)
