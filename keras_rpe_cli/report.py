"""What commands print."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


def one_line(message: object) -> str:
    r"""Give the message of an error or a warning as one line.

    Example:
        >>> one_line(ValueError("no\n  space "))
        'no space'
    """
    return " ".join(str(message).split()) or type(message).__name__


def counted(number: int, noun: str) -> str:
    """Put a number before a noun, in the plural if need be."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# Parameters of the library for which an option of the same name stands.
_PARAMETERS = "channel|diameter|images|instances|names|page|preset|project|seed|validation_split"
_NAMED_PARAMETER = re.compile(rf"`({_PARAMETERS})`|\b({_PARAMETERS})=(?=\S)")


def print_error(message: str) -> None:
    """Print `error: …` on stderr, with the names of options for those of parameters."""

    def option(found: re.Match[str]) -> str:
        name = f"--{(found[1] or found[2]).replace('_', '-')}"
        return name if found[1] else f"{name} "

    typer.echo(f"error: {_NAMED_PARAMETER.sub(option, message)}", err=True)


def print_warning(message: str) -> None:
    """Print `warning: …` on stderr."""
    typer.echo(f"warning: {message}", err=True)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a progress bar where stderr is a terminal.

    Yields a function to call after each step, or with what has been done since and a new
    description.
    """
    if not sys.stderr.isatty():
        yield lambda steps=1.0, text=None: None
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
        yield lambda steps=1.0, text=description: progress.update(
            task, advance=steps, description=text
        )


_LONGEST_NAME = 40  # A path that is longer may be broken.


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout, as wide as its terminal, or 100 characters elsewhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)
    for index, (column, cells) in enumerate(zip(columns, zip(*rows))):
        numbers = all(cell[:1].isdigit() for cell in cells if cell)
        table.add_column(
            column,
            justify="right" if numbers and index else "left",
            no_wrap=numbers or (index == 0 and max(map(len, cells)) <= _LONGEST_NAME),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def import_keras_rpe() -> None:
    """Import the library, and TensorFlow with it, without a line on stderr unless that fails.

    TensorFlow writes some notes before its level of logging has an effect, straight to the file
    descriptor, so that is turned away during the import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras_rpe" not in sys.modules:
        sys.stderr.flush()
        stderr = os.dup(2)
        # `held_back_stderr` does the same, but is in the library.
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                import keras_rpe  # noqa: F401
            except BaseException:
                held.seek(0)
                os.write(stderr, held.read())
                raise
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
    if "tensorflow" in sys.modules:  # Other backends do without.
        import absl.logging

        logging.getLogger("tensorflow").setLevel("ERROR")
        absl.logging.set_verbosity(absl.logging.ERROR)


def print_device() -> None:
    """Say with which backend and on which device the command computes."""
    from keras_rpe.ops.backend import device_name

    typer.echo(device_name())
