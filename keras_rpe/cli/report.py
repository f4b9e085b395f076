"""Lines and progress bars on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


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
