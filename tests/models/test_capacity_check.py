import warnings
from itertools import combinations
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.losses import CosineMarginLoss
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.models.checks import VOID, CapacityCheck


def tiny(**kwargs: Any) -> InstanceSegmenter:
    """A segmenter that is fast to build, of stride 2."""
    settings = {
        "embedding_dim": 2,
        "iterations": 1,
        "fusion_filters": 4,
        "position_periods": None,
        "neighborhood": None,
    }
    return InstanceSegmenter(unet_encoder((4, 8), blocks=1), **{**settings, **kwargs})


def tiles(count: int, side: int = 4) -> np.ndarray:
    """A map of 16 × 16 cells with so many squares of `side` cells, the rest background."""
    ids = np.arange(1, 1 + (16 // side) ** 2)
    ids = np.where(ids <= count, ids, 0).reshape(1, 16 // side, 16 // side)
    return ids.repeat(2 * side, axis=1).repeat(2 * side, axis=2).astype("int32")


def messages(model: InstanceSegmenter, *maps: np.ndarray, epochs: int = 1) -> list[str]:
    """What training on these maps, one a step, warns of."""
    labels = np.concatenate(maps)
    images = np.random.default_rng(0).random((*labels.shape, 3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(images, labels, batch_size=1, epochs=epochs, shuffle=False, verbose=0)
    return [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        {"run_eagerly": True},
        {"steps_per_execution": 2},
    ],
)
def test_warns_once_of_more_instances_than_fit(settings: dict[str, Any]) -> None:
    model = tiny()
    model.compile("sgd", **settings)
    assert messages(model, tiles(9), tiles(9), epochs=2) == [
        "embedding_dim=2 and margin=0.5 hold at most 4 groups, but an image has 9, so the margin "
        "loss cannot fall to 0; embedding_dim=5 and margin=0.5 would hold them."
    ]
    assert messages(model, tiles(9)) == []
    model.compile("sgd", **settings)
    assert len(messages(model, tiles(9))) == 1


def test_no_warning_of_as_many_as_fit() -> None:
    model = tiny()
    model.compile("sgd", run_eagerly=True)
    assert messages(model, tiles(4), tiles(0), tiles(1)) == []
    assert model._capacity_check is not None
    assert model._capacity_check.seen_groups == 4


def test_background_counts_where_it_is_embedded_and_void_never() -> None:
    model = tiny(embed_background=True, ignore_label=99)
    model.compile("sgd", run_eagerly=True)
    void = np.where(tiles(4) == 4, 99, tiles(4))
    assert messages(model, void) == []
    [message] = messages(model, *[tiles(4)] * 17)
    assert "an image has 5" in message


def test_a_rotation_of_the_sphere_does_not_matter() -> None:
    model = tiny(position_periods=(8.0,))
    model.compile("sgd", run_eagerly=True)
    [message] = messages(model, tiles(5))
    assert "an image has 5" in message


def test_a_small_margin_holds_few_in_any_dimension() -> None:
    model = tiny(embedding_dim=24, margin=0.1)
    model.compile("sgd", run_eagerly=True)
    [message] = messages(model, tiles(3))
    assert "embedding_dim=24 and margin=0.1 hold at most 2 groups" in message
    assert "embedding_dim=24 and margin=0.5 would hold them" in message


def test_neighborhood_counts_those_near_each_other() -> None:
    # Of 4 × 4 cells: windows of 6 × 6 hold up to 4 of them.
    model = tiny(neighborhood=8.0)
    model.compile("sgd", run_eagerly=True)
    assert messages(model, tiles(9)) == []
    # Of 2 × 2 cells: one window has 9.
    model = tiny(neighborhood=8.0)
    model.compile("sgd", run_eagerly=True)
    [message] = messages(model, tiles(64, side=2))
    assert (
        "hold at most 4 groups, but within neighborhood=8 of each other an image has 9" in message
    )


def test_counts_at_every_16th_step() -> None:
    model = tiny()
    model.compile("sgd", run_eagerly=True)
    assert messages(model, *[tiles(1)], *[tiles(9)] * 15) == []
    assert len(messages(model, tiles(9))) == 1


def test_also_with_train_on_batch_but_not_in_evaluation() -> None:
    model = tiny()
    model.compile("sgd", run_eagerly=True)
    images, labels = np.zeros((1, 32, 32, 3)), tiles(9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.evaluate(images, labels, verbose=0)
    with pytest.warns(UserWarning, match="an image has 9"):
        model.train_on_batch(images, labels)


def test_margin_and_neighborhood_are_those_of_the_compiled_loss(tmp_path) -> None:
    model = tiny()
    model.compile("sgd", loss={"embedding": CosineMarginLoss(0.9), "shift_1": None})
    assert model._capacity_check is not None
    assert model._capacity_check.most_groups == 9
    for loss in ({"semantic": "mse"}, {"embedding": CosineMarginLoss(negative_weight=0.0)}):
        model.compile("sgd", loss=loss)
        assert model._capacity_check is None
    model.compile("sgd", run_eagerly=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(messages(loaded, tiles(9))) == 1


def test_adds_no_weights() -> None:
    model = tiny()
    before = [variable.path for variable in model.variables]
    model.compile("sgd", run_eagerly=True)
    messages(model, tiles(9))
    names = [variable.path for variable in model.weights]
    assert set(names) <= set(before)


def cliques(labels: np.ndarray, neighborhood: float) -> int:
    """The most ids that all have pixels within the neighborhood of each other."""
    ids = [i for i in np.unique(labels) if i != VOID]
    places = {i: np.argwhere(labels == i) for i in ids}

    def are_near(i: int, j: int) -> bool:
        apart = places[i][:, None] - places[j][None]
        return bool(np.hypot(apart[..., 0], apart[..., 1]).min() <= neighborhood)

    near = {(i, j) for i, j in combinations(ids, 2) if are_near(i, j)}
    return max(
        len(some)
        for size in range(len(ids) + 1)
        for some in combinations(ids, size)
        if all(pair in near for pair in combinations(some, 2))
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    neighborhood=st.floats(0.5, 20.0),
)
@settings(deadline=None, max_examples=50)
def test_counts_only_groups_that_are_all_pairs(
    seed: int, height: int, width: int, neighborhood: float
) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice([VOID, 0, 3, 4, 500, 2**24], size=(1, height, width)).astype("int32")
    embedding = np.zeros((1, height, width, 3), "float32")
    near = CapacityCheck(3, CosineMarginLoss(neighborhood=neighborhood))
    near.observe(labels, embedding, VOID)
    distinct = len(set(labels.ravel()) - {VOID})
    assert min(1, distinct) <= near.seen_groups <= cliques(labels[0], neighborhood)
    if neighborhood >= 1.5 * max(height, width):
        assert near.seen_groups == distinct
    whole = CapacityCheck(3, CosineMarginLoss())
    whole.observe(labels, embedding, VOID)
    assert whole.seen_groups == distinct


def test_counts_cells_of_a_coarser_map_and_the_fullest_image() -> None:
    check = CapacityCheck(3, CosineMarginLoss())
    labels = np.concatenate([tiles(64, side=2), tiles(3)])
    check.observe(labels, np.zeros((2, 4, 4, 3), "float32"), VOID)
    assert check.seen_groups == 16
