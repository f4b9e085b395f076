import json

import keras
import numpy as np
import pytest

from keras_rpe.callbacks import TrainingState

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X @ np.array([[1.0], [2.0], [3.0]], "float32")


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


def _weights(model: keras.Model) -> np.ndarray:
    return np.concatenate([w.ravel() for w in model.get_weights()])


def _fit(model: keras.Model, state: TrainingState, epochs: int, start: int = 0) -> keras.Model:
    model.fit(X, Y, batch_size=8, epochs=epochs, initial_epoch=start, verbose=0, callbacks=[state])
    return model


def test_continuing_equals_never_stopping(tmp_path) -> None:
    whole = _fit(_model(), TrainingState(tmp_path / "a", "loss"), 6)
    _fit(_model(), TrainingState(tmp_path / "b", "loss"), 3)
    restored = TrainingState.restore(tmp_path / "b")
    assert restored is not None
    model, epoch = restored
    assert epoch == 3
    _fit(model, TrainingState(tmp_path / "b", "loss"), 6, epoch)
    np.testing.assert_allclose(_weights(model), _weights(whole), rtol=1e-5)
    assert [path.name for path in tmp_path.glob("b/epoch-*")] == ["epoch-0006"]


def test_a_half_written_state_is_never_read(tmp_path) -> None:
    _fit(_model(), TrainingState(tmp_path, "loss"), 2)
    (tmp_path / ".state").mkdir()
    (tmp_path / ".state" / "model.keras").write_text("half")
    (tmp_path / "epoch-0009").mkdir()
    restored = TrainingState.restore(tmp_path)
    assert restored is not None
    assert restored[1] == 2
    _fit(restored[0], TrainingState(tmp_path, "loss"), 3, 2)
    assert not (tmp_path / ".state").exists()


def test_a_full_disk_keeps_the_epoch_before(tmp_path, monkeypatch) -> None:
    _fit(_model(), TrainingState(tmp_path, "loss"), 2)
    before = sorted(path.name for path in tmp_path.iterdir())
    model, epoch = TrainingState.restore(tmp_path)

    def save(path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save", save)
    with pytest.raises(OSError, match="No space left"):
        _fit(model, TrainingState(tmp_path, "loss"), 3, epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert TrainingState.restore(tmp_path)[1] == 2


def test_patience_is_remembered(tmp_path) -> None:
    class Stuck(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["figure"] = [1.0, 3.0, 2.0, 2.5, 2.5, 9.0][epoch]

    def run(start: int, epochs: int) -> TrainingState:
        state = TrainingState(tmp_path, "figure", mode="max", patience=3)
        model = _model()
        model.fit(X, Y, initial_epoch=start, epochs=epochs, verbose=0, callbacks=[Stuck(), state])
        return state

    assert run(0, 3).wait == 1
    state = run(3, 99)
    assert (state.best, state.wait) == (3.0, 3)
    assert TrainingState.is_stalled(tmp_path, 3)
    assert not TrainingState.is_stalled(tmp_path, 4)
    assert json.loads((tmp_path / "epoch-0005" / "state.json").read_text())["epoch"] == 5
    assert state.best_model.is_file()


def test_nothing_to_restore_and_a_damaged_state(tmp_path) -> None:
    assert TrainingState.restore(tmp_path) is None
    _fit(_model(), TrainingState(tmp_path, "loss"), 1)
    (tmp_path / "epoch-0001" / "model.keras").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="training state .* cannot be read"):
        TrainingState.restore(tmp_path)


def test_wrong_arguments(tmp_path) -> None:
    with pytest.raises(ValueError, match="`mode` must"):
        TrainingState(tmp_path, mode="up")
    with pytest.raises(ValueError, match="`patience` must"):
        TrainingState(tmp_path, patience=0)
