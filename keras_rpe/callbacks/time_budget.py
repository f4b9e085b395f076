"""Training that ends on time."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import keras

from keras_rpe.arguments import check_number
from keras_rpe.written_file import write_file

_FILE = "time_budget.json"


class TimeBudget(keras.callbacks.Callback):
    """Train for given minutes of wall clock, with a learning rate that follows the clock.

    The rate rises linearly from a hundredth of its peak, then falls to that again along half a
    cosine, so that training ends annealed on any machine, however many steps it takes. Give `fit`
    more epochs than the time allows. The clock starts at the first step and includes what other
    callbacks do between epochs. The time that has passed is written at the end of every epoch, and
    a run that was killed goes on from there.

    Args:
        minutes: Wall-clock time of the training, in minutes.
        learning_rate: Peak of the learning rate; the optimizer must be compiled with a number, not
            with a schedule.
        folder: Folder of the run, which is made if it is missing; with `None` nothing is written.
        warmup: Share of the time in which the rate rises, in [0, 1).

    Raises:
        ValueError: If an argument is out of its range.
        OSError: If the folder cannot be written.

    Example:
        >>> import keras, numpy as np
        >>> from keras_rpe.callbacks import TimeBudget
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, budget = np.ones((4, 1), "float32"), TimeBudget(0.01, learning_rate=0.1)
        >>> history = model.fit(x, x, epochs=10**6, callbacks=[budget], verbose=0)
        >>> 0.6 <= budget.passed < 60
        True
    """

    def __init__(
        self,
        minutes: float,
        learning_rate: float,
        folder: str | os.PathLike[str] | None = None,
        warmup: float = 0.02,
    ) -> None:
        super().__init__()
        self.seconds = 60.0 * check_number("minutes", minutes)
        self.learning_rate = check_number("learning_rate", learning_rate)
        self.warmup = check_number("warmup", warmup, "[0, 1)")
        self.file = None if folder is None else Path(folder, _FILE)
        self.updates, self._before, self._start = 0, 0.0, math.nan
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self.file.is_file():
                state = json.loads(self.file.read_text())
                self._before, self.updates = state["seconds"], state["updates"]

    @property
    def passed(self) -> float:
        """Seconds of training until now, those before a restart included."""
        running = 0.0 if math.isnan(self._start) else time.monotonic() - self._start
        return self._before + running

    @property
    def is_over(self) -> bool:
        """Whether the time has passed."""
        return self.passed >= self.seconds

    def rate(self, share: float) -> float:
        """The learning rate when this share of the time, in [0, 1], has passed."""
        if share < self.warmup:
            height = share / self.warmup
        else:
            along = min((share - self.warmup) / (1.0 - self.warmup), 1.0)
            height = (1.0 + math.cos(math.pi * along)) / 2.0
        return self.learning_rate * (0.01 + 0.99 * height)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock at the first step, and set the rate."""
        if math.isnan(self._start):
            self._start = time.monotonic()
        self.model.optimizer.learning_rate.assign(self.rate(self.passed / self.seconds))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop when the time has passed."""
        self.updates += 1
        if self.is_over:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write what has passed."""
        if self.file is not None:
            passed = {"seconds": self.passed, "updates": self.updates}
            write_file(self.file, json.dumps(passed))
