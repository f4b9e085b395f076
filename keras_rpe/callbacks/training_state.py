"""Training that continues where it was killed."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import keras

from keras_rpe.arguments import check_choice, check_integer

_STATE, _MODEL = "state.json", "model.keras"


class TrainingState(keras.callbacks.Callback):
    """Save the state of training after every epoch, keep the best model, and stop when it stalls.

    A state is a folder `epoch-0007` with the model, its optimizer, and the numbers below; it is
    written under a temporary name and renamed when complete, so a run that is killed at any
    moment loses at most the epoch it was in. The best model is `best.keras`.

    Args:
        folder: Folder of the run, made if it is missing.
        monitor: Name in the logs by which models are compared; put callbacks that log it before
            this one. Epochs that do not log it count neither way.
        mode: "min" or "max", which values of it are better.
        patience: Stop after that many epochs without a better value; `None`: never.

    Raises:
        ValueError: If `mode` or `patience` is out of its range.
        OSError: If the folder cannot be written.

    Example:
        >>> import keras, numpy as np, tempfile
        >>> from keras_rpe.callbacks import TrainingState
        >>> x = np.ones((4, 1), "float32")
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> with tempfile.TemporaryDirectory() as run:
        ...     state = TrainingState(run, monitor="loss")
        ...     history = model.fit(x, x, epochs=2, callbacks=[state], verbose=0)
        ...     model, epoch = TrainingState.restore(run)
        >>> epoch
        2
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        monitor: str = "val_loss",
        mode: str = "min",
        patience: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, ("min", "max"))
        if patience is not None:
            check_integer("patience", patience)
        self.folder = Path(folder)
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.best: float | None = None
        self.wait = 0
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def best_model(self) -> Path:
        """Path of the best model."""
        return self.folder / "best.keras"

    @staticmethod
    def restore(folder: str | os.PathLike[str]) -> tuple[keras.Model, int] | None:
        """Load the last state of a run.

        Args:
            folder: Folder of the run.

        Returns:
            The compiled model with its optimizer and the number of epochs done, which is the
            `initial_epoch` of `fit`; `None` if the run has no state.

        Raises:
            ValueError: If the state cannot be read.
        """
        state = _latest(Path(folder))
        if state is None:
            return None
        try:
            return keras.saving.load_model(state / _MODEL), _read(state)["epoch"]
        except Exception as error:
            raise ValueError(
                f"The training state {state} cannot be read, remove it to start from the one "
                f"before or anew: {str(error).strip().splitlines()[0]}"
            ) from error

    @staticmethod
    def is_stalled(folder: str | os.PathLike[str], patience: int | None) -> bool:
        """Whether a run has ended by its patience.

        Args:
            folder: Folder of the run.
            patience: As in the constructor.
        """
        state = _latest(Path(folder))
        return patience is not None and state is not None and _read(state)["wait"] >= patience

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Take up the numbers of the run's last state."""
        state = _latest(self.folder)
        if state is not None:
            numbers = _read(state)
            self.best, self.wait = numbers["best"], numbers["wait"]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the state, and the model if it is the best so far."""
        value = (logs or {}).get(self.monitor)
        if value is not None:
            sign = 1.0 if self.mode == "min" else -1.0
            best = math.inf if self.best is None else sign * self.best
            if sign * value < best and math.isfinite(value):
                self.best, self.wait = float(value), 0
                temporary = self.folder / ".best.keras"
                try:
                    self.model.save(temporary)
                    temporary.replace(self.best_model)
                finally:
                    temporary.unlink(missing_ok=True)
            else:
                self.wait += 1
        self._save_state(epoch + 1)
        if self.patience is not None and self.wait >= self.patience:
            self.model.stop_training = True

    def _save_state(self, epoch: int) -> None:
        temporary, state = self.folder / ".state", self.folder / f"epoch-{epoch:04d}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            self.model.save(temporary / _MODEL)
            numbers = {"epoch": epoch, "best": self.best, "wait": self.wait}
            (temporary / _STATE).write_text(json.dumps(numbers))
            shutil.rmtree(state, ignore_errors=True)
            temporary.replace(state)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in self.folder.glob("epoch-*"):
            if old != state:
                shutil.rmtree(old, ignore_errors=True)


def _latest(folder: Path) -> Path | None:
    states = sorted(path for path in folder.glob("epoch-*") if (path / _STATE).is_file())
    return states[-1] if states else None


def _read(state: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((state / _STATE).read_text())
    return numbers
