import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_rpe.callbacks import TimeBudget

X = np.ones((8, 1), "float32")


def _model() -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


class _Rates(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))


def _tick(monkeypatch, seconds: float) -> None:
    """Let the clock of the callback advance by so much whenever it is read."""
    now = iter(np.arange(10**6) * seconds)
    clock = SimpleNamespace(monotonic=lambda: float(next(now)))
    monkeypatch.setattr("keras_rpe.callbacks.time_budget.time", clock)


def test_ends_on_time_and_annealed(monkeypatch) -> None:
    _tick(monkeypatch, 0.5)
    budget, seen = TimeBudget(1.0, 0.1, warmup=0.2), _Rates()
    _model().fit(X, X, batch_size=2, epochs=10**6, verbose=0, callbacks=[budget, seen])
    # Two readings a step, at its begin and at its end, and one when the clock starts.
    assert 57 <= budget.updates == len(seen.rates) <= 60
    assert budget.is_over
    assert seen.rates[0] < 0.02
    assert max(seen.rates) == pytest.approx(0.1, rel=0.02)
    assert seen.rates[-1] < 0.02


def test_the_rate_follows_the_clock() -> None:
    budget = TimeBudget(1, 1.0, warmup=0.1)
    assert budget.rate(0.0) == pytest.approx(0.01)
    assert budget.rate(0.05) == pytest.approx(0.505)
    assert budget.rate(0.1) == pytest.approx(1.0)
    assert budget.rate(0.55) == pytest.approx(0.505)
    assert budget.rate(1.0) == budget.rate(1.5) == pytest.approx(0.01)
    assert TimeBudget(1, 1.0, warmup=0.0).rate(0.0) == pytest.approx(1.0)


def test_what_has_passed_counts_after_a_restart(tmp_path) -> None:
    first = TimeBudget(60, 0.1, tmp_path / "run")
    _model().fit(X, X, batch_size=2, epochs=2, verbose=0, callbacks=[first])
    passed = json.loads((tmp_path / "run" / "time_budget.json").read_text())
    assert passed["updates"] == 8
    assert 0 < passed["seconds"] <= first.passed
    second = TimeBudget(60, 0.1, tmp_path / "run")
    assert (second.passed, second.updates) == (passed["seconds"], 8)
    assert not second.is_over
    # Minutes are rounded, so that a budget of just what has passed may lie on either side.
    for share, is_over in ((0.999, True), (1.001, False)):
        minutes = share * passed["seconds"] / 60
        assert TimeBudget(minutes, 0.1, tmp_path / "run").is_over == is_over


@pytest.mark.parametrize(
    "wrong",
    [
        {"minutes": 0},
        {"minutes": float("inf")},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"warmup": 1.0},
    ],
)
def test_wrong_arguments(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must .* Received: "):
        TimeBudget(**{"minutes": 1, "learning_rate": 0.1, **wrong})
