import csv
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_rpe.metrics import BoundaryFigures
from keras_rpe.visualization import loss_per_loop, precision_recall_picture


def test_a_history_and_its_log_give_the_same_picture(tmp_path):
    losses = {
        "embedding_loss": [0.5, 0.4],
        "val_embedding_loss": [0.6, 0.5],
        "shift_1_loss": [1, 2],
    }
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    log.set_model(keras.Sequential())
    log.on_train_begin()
    for index, epoch in enumerate((4, 5)):
        log.on_epoch_end(epoch, {name: values[index] for name, values in losses.items()})
    log.on_train_end()
    picture = loss_per_loop(SimpleNamespace(history=losses, epoch=[4, 5]))
    assert picture.shape == (400, 640, 3)
    assert picture.dtype == np.uint8
    assert_array_equal(loss_per_loop(str(tmp_path / "log.csv")), picture)
    # A dictionary does not say at which epoch it begins.
    assert (loss_per_loop(losses) != picture).any()


def test_missing_values_are_a_gap_and_other_names_are_not_drawn(tmp_path):
    history = {
        "shift_2_loss": (0.5, float("nan"), np.float32(1)),
        "embedding_loss": np.array([3.0, 2.0, 1.0]),
        "val_shift_2_loss": ["NA", "0.25", ""],
    }
    picture = loss_per_loop(history)
    others = {"shift_0_loss": [9, 9, 9], "semantic_loss": [9, 9, 9], "loss": [9]}
    assert_array_equal(loss_per_loop(history | others), picture)
    for missing in (None, np.inf, "NA"):
        changed = history | {"shift_2_loss": [0.5, missing, 1]}
        assert_array_equal(loss_per_loop(changed), picture)
    (tmp_path / "log.csv").write_text("epoch,embedding_loss,shift_1_loss\n0,1,2\n1,3\n")
    cut_short = loss_per_loop(tmp_path / "log.csv")
    assert_array_equal(
        cut_short, loss_per_loop({"embedding_loss": [1, 3], "shift_1_loss": [2, None]})
    )


@pytest.mark.parametrize(
    ("history", "options"),
    [
        ({"embedding_loss": [0.4]}, {"width": 320, "height": 200}),
        ({"embedding_loss": [-0.5] * 30, "shift_1_loss": [1.0] * 30}, {}),
        ({"embedding_loss": [0.0] * 3}, {}),
        ({f"shift_{k}_loss": [10.0**-k] * 40 for k in range(1, 9)}, {"log_scale": True}),
    ],
)
def test_losses_of_all_kinds_are_drawn(history, options):
    picture = loss_per_loop(history, **options)
    assert picture.shape == (options.get("height", 400), options.get("width", 640), 3)
    assert (np.ptp(picture.astype(int), axis=-1) > 60).any()


@pytest.mark.parametrize(
    "history",
    [
        None,
        {},
        {"embedding_loss": []},
        {"embedding_loss": 1.0},
        {"embedding_loss": ["a"]},
        {"embedding_loss": [1.0], "shift_1_loss": [1.0, 2.0]},
        {"embedding_loss": [float("nan"), None]},
        SimpleNamespace(history={"embedding_loss": [1.0]}, epoch=[0, 1]),
        b"",
        b"epoch,embedding_loss\n",
        b"epoch,embedding_loss\n0,1,2\n",
        b"\xff\xfe\x00",
        b"embedding_loss\n" + b"9" * (csv.field_size_limit() + 1),
    ],
)
def test_refuses_other_histories(tmp_path, history):
    if isinstance(history, bytes):
        (tmp_path / "log.csv").write_bytes(history)
        history = tmp_path / "log.csv"
    with pytest.raises(ValueError, match=r"`history` must .*Received"):
        loss_per_loop(history)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"width": 319}, "width"), ({"height": 300.0}, "height"), ({"log_scale": True}, "history")],
)
def test_refuses_other_options(options, word):
    with pytest.raises(ValueError, match=rf"`{word}` must .*Received"):
        loss_per_loop({"embedding_loss": [0.0, -1.0]}, **options)


def test_a_large_file_is_not_read_and_a_missing_one_is_an_os_error(tmp_path):
    path = tmp_path / "log.csv"
    with pytest.raises(FileNotFoundError):
        loss_per_loop(path)
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ValueError, match=r"at most 64 MiB.*Received.*65 MiB"):
        loss_per_loop(path)


def test_precision_and_recall():
    counts = np.array([[[80, 100, 40, 100], [60, 100, 45, 75], [0, 100, 0, 0]]])
    figures = BoundaryFigures.from_counts(counts, np.array([0.25, 0.5, 0.75]))
    one = precision_recall_picture({"a": figures}, side=300)
    assert one.shape == (362, 392, 3)
    assert one.dtype == np.uint8
    assert (precision_recall_picture({"a": figures}, {"Human": (0.75, 0.9)}, side=300) != one).any()
    nothing = BoundaryFigures.from_counts(np.array([[[0, 9, 0, 0]]]), np.array([0.5]))
    many = {f"method {i}": nothing for i in range(8)}
    assert precision_recall_picture(many, {"nobody": (0.0, 0.0)}).shape == (542, 572, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "`figures` must hold at least one"),
        (({}, {"Human": (0.5, 1.5)}), "`points` must be pairs"),
        (({}, {"Human": (0.5, float("nan"))}), "`points` must be pairs"),
        (({}, {"Human": (0.5, 0.5)}, 100), "`side` must be an integer.*side=100"),
    ],
)
def test_precision_and_recall_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        precision_recall_picture(*arguments)
