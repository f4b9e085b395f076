import warnings
from itertools import combinations
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.losses import CosineMarginLoss
from keras_rpe.models import InstanceSegmenter, SemanticSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.models.checks import VOID, CapacityCheck, ClassCheck


def tiny(task: type = InstanceSegmenter, **kwargs: Any) -> Any:
    """A model that is fast to build, of stride 2."""
    settings = {"embedding_dim": 2, "fusion_filters": 4, **kwargs}
    if task is InstanceSegmenter:
        free = {"iterations": 1, "position_periods": None, "neighborhood": None}
        settings = {**free, **settings}
    return task(unet_encoder((4, 8), blocks=1), **settings)


def tiles(count: int, side: int = 4) -> np.ndarray:
    """A map of 16 × 16 cells with so many squares of `side` cells, the rest background."""
    ids = np.arange(1, 1 + (16 // side) ** 2)
    ids = np.where(ids <= count, ids, 0).reshape(1, 16 // side, 16 // side)
    return ids.repeat(2 * side, axis=1).repeat(2 * side, axis=2).astype("int32")


def messages(model: Any, *maps: np.ndarray, epochs: int = 1) -> list[str]:
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
        {"jit_compile": False, "steps_per_execution": 2},
    ],
)
def test_warns_once_of_more_instances_than_fit(settings: dict[str, Any]) -> None:
    model = tiny()
    model.compile("sgd", **settings)
    [message] = messages(model, tiles(9), tiles(9), epochs=2)
    assert "embedding_dim=2 and margin=0.5 hold at most 4 groups, but an image has 9" in message
    assert "embedding_dim=5 and margin=0.5 would hold them" in message
    assert messages(model, tiles(9)) == []
    model.compile("sgd", **settings)
    assert len(messages(model, tiles(9))) == 1


def test_says_nothing_where_the_loss_can_fall_to_0() -> None:
    model = tiny(ignore_label=99)
    before = {variable.path for variable in model.variables}
    model.compile("sgd", run_eagerly=True)
    void = np.where(tiles(5) == 5, 99, tiles(5))
    assert messages(model, tiles(4), tiles(0), tiles(1), void) == []
    assert {variable.path for variable in model.weights} <= before
    near = tiny(neighborhood=8.0)  # Windows of 6 × 6 cells hold up to 4 squares of 4 × 4.
    near.compile("sgd", run_eagerly=True)
    assert messages(near, tiles(9)) == []


@pytest.mark.parametrize(
    ("arguments", "labels", "expected"),
    [
        ({"embed_background": True}, tiles(4), "an image has 5"),
        ({"position_periods": (8.0,)}, tiles(5), "an image has 5"),
        ({"embedding_dim": 24, "margin": 0.1}, tiles(3), "hold at most 2 groups"),
        ({"neighborhood": 8.0}, tiles(64, side=2), "within neighborhood=8 of each other an image"),
    ],
)
def test_counts_what_the_loss_compares(arguments: dict, labels: Any, expected: str) -> None:
    model = tiny(**arguments)
    model.compile("sgd", run_eagerly=True)
    [message] = messages(model, labels)
    assert expected in message


def test_looks_at_every_16th_training_step() -> None:
    check = CapacityCheck(2, CosineMarginLoss())
    cells = {"embedding": np.zeros((1, 16, 16, 2), "float32")}
    step = check.after(lambda labels: check.observe({"embedding": labels}, cells))
    step(tiles(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for _ in range(15):
            step(tiles(9))
    with pytest.warns(UserWarning, match="an image has 10"):  # The background is one.
        step(tiles(9))


def test_warns_in_training_only_and_of_a_loaded_model_too(tmp_path) -> None:
    model = tiny()
    model.compile("sgd", run_eagerly=True)
    model.save(tmp_path / "model.keras")
    images, labels = np.zeros((1, 32, 32, 3)), tiles(9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.evaluate(images, labels, verbose=0)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    for one in (model, loaded):
        with pytest.warns(UserWarning, match="an image has 9"):
            one.train_on_batch(images, labels)


def test_margin_and_neighborhood_are_those_of_the_compiled_loss() -> None:
    check = CapacityCheck.of_loss(2, {"embedding": CosineMarginLoss(0.9), "shift_1": None})
    assert check is not None
    assert check.most_groups == 9
    for loss in ({"semantic": "mse"}, {"embedding": CosineMarginLoss(negative_weight=0.0)}):
        assert CapacityCheck.of_loss(2, loss) is None


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
    batch = {"embedding": labels}, {"embedding": np.zeros((1, height, width, 3), "float32")}
    near = CapacityCheck(3, CosineMarginLoss(neighborhood=neighborhood))
    near.observe(*batch)
    distinct = len(set(labels.ravel()) - {VOID})
    assert min(1, distinct) <= near.seen_groups <= cliques(labels[0], neighborhood)
    if neighborhood >= 1.5 * max(height, width):
        assert near.seen_groups == distinct
    whole = CapacityCheck(3, CosineMarginLoss())
    whole.observe(*batch)
    assert whole.seen_groups == distinct


def test_counts_cells_of_a_coarser_map_and_the_fullest_image() -> None:
    check = CapacityCheck(3, CosineMarginLoss())
    labels = np.concatenate([tiles(64, side=2), tiles(3)])
    check.observe({"embedding": labels}, {"embedding": np.zeros((2, 4, 4, 3), "float32")})
    assert check.seen_groups == 16


IMAGES = np.random.default_rng(0).random((2, 16, 16, 3))


def maps(*classes: int) -> np.ndarray:
    """Two class maps whose first pixels have these classes."""
    labels = np.ones((2, 16, 16), "int32")
    labels[0, 0, : len(classes)] = classes
    return labels


@pytest.mark.parametrize(
    ("wrong", "settings"),
    [
        pytest.param(3, {"jit_compile": True}, marks=pytest.mark.slow),
        (3, {"jit_compile": False}),
        (-2, {"run_eagerly": True}),
    ],
)
def test_a_class_beyond_those_of_the_model(wrong: int, settings: dict[str, Any]) -> None:
    model = tiny(SemanticSegmenter, num_classes=2, ignore_label=255)
    model.compile("sgd", **settings)
    with pytest.raises(ValueError, match=f"num_classes=2, .*Received: {wrong}$"):
        model.fit(IMAGES, maps(0, wrong, 2), verbose=0)
    # Nothing is wrong with other maps afterwards.
    history = model.fit(IMAGES, maps(0, 255, 2), verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.filterwarnings("ignore:embedding_dim")
def test_classes_of_instances() -> None:
    model = tiny(num_classes=2)
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="Received: 7$"):
        model.fit(IMAGES, {"instances": maps(1), "classes": maps(7)}, verbose=0)


def test_wrong_classes_become_void() -> None:
    classes = {"semantic": np.array([[[-5, -1, 0, 3, 4]]])}
    found = ClassCheck(num_classes=3).observe(classes, {})["semantic"]
    assert np.array(found).tolist() == [[[-1, -1, 0, 3, -1]]]
