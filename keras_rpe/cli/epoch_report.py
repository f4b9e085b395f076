"""What training tells about its epochs."""

from __future__ import annotations

import csv
import io
import math
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import typer

from keras_rpe.cli.report import one_line, progress_bar
from keras_rpe.written_file import write_file


class EpochReport(keras.callbacks.Callback):
    """Show a bar in every epoch and a line after it, and end a run whose loss is not finite.

    Args:
        epochs: Number of the last epoch.
        steps: Steps of an epoch.
    """

    def __init__(self, epochs: int, steps: int) -> None:
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self._start = 0.0
        self._bar = ExitStack()
        self._advance: Any = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the bar."""
        self._start = time.perf_counter()
        bar = progress_bar(f"epoch {epoch + 1}/{self.epochs}", self.steps)
        self._advance = self._bar.enter_context(bar)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Advance the bar."""
        self._advance()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print the losses and the figures of the epoch.

        Raises:
            ValueError: If the loss is NaN or infinite.
        """
        self.close()
        logs = logs or {}
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ValueError(
                f"The loss of epoch {epoch + 1} is not finite: start a new run with a lower "
                "--learning-rate."
            )
        parts = [
            f"{name.removesuffix('_loss')} {logs[name]:.4f}"
            for name in sorted(logs)
            if name.endswith("_loss") and not name.startswith("val_")
        ]
        figures = [f"{name} {logs[name]:.3f}" for name in logs if name.startswith("val_")]
        typer.echo(
            f"epoch {epoch + 1}/{self.epochs}  loss {logs.get('loss', math.nan):.4f} "
            f"({', '.join(parts)})  {'  '.join(figures)}  {time.perf_counter() - self._start:.0f} s"
        )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def cut_log(path: Path, epochs: int) -> None:
    """Leave only the first epochs in the log of a run, those that its state has.

    Args:
        path: The CSV file, with a column `epoch` from 0; nothing is done where it is missing.
        epochs: How many epochs to leave.
    """
    rows = _read_log(path)
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(row for row in rows if _number(row["epoch"]) < epochs)
    write_file(path, text.getvalue())


def epochs_in_log(path: Path) -> int:
    """How many epochs a run's log has."""
    return len(_read_log(path))


def input_problem(error: Exception) -> str:
    """The sentence inside an error that TensorFlow raised from the data or for want of memory."""
    if type(error).__name__ == "ResourceExhaustedError":
        return "The memory is too small for this model: lower --batch-size or --crop-size."
    found = re.search(r"assertion failed: \[b?['\"]?(.*?)['\"]?\]", str(error), re.DOTALL)
    return found.group(1) if found else one_line(error)[:300]


def _read_log(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if math.isfinite(_number(row.get("epoch")))]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
