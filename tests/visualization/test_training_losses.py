import csv
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.visualization import loss_per_loop
from keras_rpe.visualization.curves import training_losses


def test_a_history_and_its_log_tell_the_same(tmp_path):
    model = InstanceSegmenter(
        unet_encoder((8, 16), blocks=1), embedding_dim=4, iterations=2, fusion_filters=8
    )
    model.compile("adam")
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(2, 16, 16, 3)), rng.integers(0, 3, (2, 16, 16))
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(
        x, y, validation_data=(x, y), initial_epoch=4, epochs=6, callbacks=[log], verbose=0
    )
    epochs, losses = training_losses(history)
    assert epochs.tolist() == [5, 6]
    keys = [(one.loop, one.validation) for one in losses]
    assert keys == [(0, False), (1, False), (2, False), (0, True), (1, True), (2, True)]
    names = ["embedding_loss", "shift_1_loss", "shift_2_loss"]
    for one, name in zip(losses, [*names, *(f"val_{name}" for name in names)]):
        assert_array_equal(one.values, history.history[name])
    logged_epochs, logged = training_losses(str(tmp_path / "log.csv"))
    assert_array_equal(logged_epochs, epochs)
    for one, other in zip(losses, logged):
        assert one[:2] == other[:2]
        assert_array_equal(one.values, other.values)
    assert_array_equal(loss_per_loop(tmp_path / "log.csv"), loss_per_loop(history))


def test_missing_values_and_other_names():
    history = {
        "shift_10_loss": [1, 2.5, None],
        "shift_2_loss": (0.5, float("nan"), np.float32(1)),
        "embedding_loss": np.array([3.0, 2.0, 1.0]),
        "val_shift_2_loss": ["NA", "0.25", ""],
        "shift_0_loss": [9, 9, 9],
        "semantic_loss": [9, 9, 9],
        "loss": [9, 9, 9],
    }
    epochs, losses = training_losses(history)
    assert epochs.tolist() == [1, 2, 3]
    assert [(one.loop, one.validation) for one in losses] == [
        (0, False), (2, False), (10, False), (2, True),
    ]  # fmt: skip
    assert_array_equal(losses[1].values, [0.5, np.nan, 1])
    assert_array_equal(losses[2].values, [1, 2.5, np.nan])
    assert_array_equal(losses[3].values, [np.nan, 0.25, np.nan])


@pytest.mark.parametrize(
    "history",
    [
        None,
        3,
        [("embedding_loss", [1])],
        {},
        {"loss": [1.0]},
        {"embedding_loss": []},
        {"embedding_loss": 1.0},
        {"embedding_loss": "1"},
        {"embedding_loss": ["a"]},
        {"embedding_loss": [[1.0, 2.0]]},
        {"embedding_loss": [1.0], "shift_1_loss": [1.0, 2.0]},
        {"embedding_loss": [float("nan"), None]},
        SimpleNamespace(history={"embedding_loss": [1.0]}, epoch=[0, 1]),
        SimpleNamespace(history={"embedding_loss": [1.0]}, epoch=[None]),
    ],
)
def test_refuses(history):
    with pytest.raises(ValueError, match=r"`history` must .*Received"):
        training_losses(history)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"epoch,embedding_loss\n",
        b"epoch,embedding_loss\n0,1,2\n",
        b"epoch,embedding_loss\n0,one\n",
        b"epoch,embedding_loss\n,1\n",
        b"\xff\xfe\x00",
        b"embedding_loss\n" + b"9" * (csv.field_size_limit() + 1),
    ],
)
def test_refuses_other_files(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"`history` must .*Received"):
        training_losses(path)


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "log.csv"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ValueError, match=r"at most 64 MiB.*Received.*65 MiB"):
        training_losses(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        training_losses(tmp_path / "log.csv")


def test_a_row_cut_short_is_missing_values(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,embedding_loss,shift_1_loss\n0,1,2\n1,3\n")
    epochs, losses = training_losses(path)
    assert epochs.tolist() == [1, 2]
    assert_array_equal(losses[1].values, [2, np.nan])
