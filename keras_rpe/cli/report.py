"""What commands print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import typer

from keras_rpe.held_back_stderr import held_back_stderr


def one_line(error: BaseException) -> str:
    r"""Give the message of an error as one line.

    Example:
        >>> one_line(ValueError("no\n  space "))
        'no space'
    """
    return " ".join(str(error).split()) or type(error).__name__


def counted(number: int, noun: str) -> str:
    """Put a number before a noun.

    Example:
        >>> counted(1, "image"), counted(0, "image")
        ('1 image', '0 images')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def print_error(message: str) -> None:
    """Print `error: …` on stderr."""
    typer.echo(f"error: {message}", err=True)


def print_warning(message: str) -> None:
    """Print `warning: …` on stderr."""
    typer.echo(f"warning: {message}", err=True)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr where that is a terminal.

    Args:
        description: What stands before the bar.
        total: How many steps there are.

    Yields:
        A function to call after every step.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True),
        transient=True,
        # Lines that go into a pipe or a file must get there, not above the bar.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)


def print_table(title: str, columns: list[str], rows: list[list[str]], width: int = 100) -> None:
    """Print a table on stdout, as wide as its terminal, or `width` characters elsewhere.

    Args:
        title: What stands above it.
        columns: Heads of the columns.
        rows: Text of the cells, row by row.
        width: Width where stdout is no terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else width).print(table)


def import_tensorflow() -> None:
    """Import TensorFlow and Keras without a line on stderr, unless that fails.

    TensorFlow writes some notes before its level of logging has an effect, straight to the file
    descriptor, so that is turned away during the import.

    Raises:
        ImportError: If TensorFlow or Keras is missing or broken; what they wrote is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with nullcontext() if "tensorflow" in sys.modules else held_back_stderr():
        import absl.logging
        import keras  # noqa: F401
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")
    absl.logging.set_verbosity(absl.logging.ERROR)
