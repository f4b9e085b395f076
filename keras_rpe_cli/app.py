"""The commands together, and how their errors reach the user."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from keras_rpe_cli.boundaries import boundaries
from keras_rpe_cli.classes import classes
from keras_rpe_cli.convert import convert
from keras_rpe_cli.demo import demo
from keras_rpe_cli.evaluate import evaluate
from keras_rpe_cli.export import export
from keras_rpe_cli.presets import presets
from keras_rpe_cli.propose import propose
from keras_rpe_cli.report import one_line, print_error
from keras_rpe_cli.segment import segment
from keras_rpe_cli.serve_check import serve_check
from keras_rpe_cli.train import train

app = typer.Typer(
    name="keras-rpe",
    help="Find the instances or boundaries in images by recurrent pixel embedding.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    segment,
    propose,
    boundaries,
    classes,
    train,
    evaluate,
    export,
    serve_check,
    convert,
    demo,
    presets,
):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"keras-rpe {version('keras-rpe')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Errors of the input, the output or the options end in one line on stderr, not in a traceback.
    The exit code is 0, 1 after an error, 2 after wrong usage, 130 after Ctrl-C.
    """
    words = None if arguments is None else list(arguments)
    try:
        with warnings.catch_warnings():
            # Those of the libraries are not for users of a command; its own are printed as lines.
            warnings.simplefilter("ignore")
            app(words, prog_name="keras-rpe")
            sys.stdout.flush()
    except SystemExit as end:
        return _flushed(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BrokenPipeError:
        return _flushed(1)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, ImportError, MemoryError) as error:
        message = one_line(error)
        if isinstance(error, MemoryError):
            message = f"out of memory: {message}"
        elif (
            isinstance(error, OSError) and error.strerror and not isinstance(error, ConnectionError)
        ):
            names = [str(name) for name in (error.filename, error.filename2) if name]
            message = ": ".join([error.strerror, *names])
        print_error(message)
        return 1
    return 0


def _flushed(code: int) -> int:
    """Leave nothing in stdout that would fail at the exit of the process: its reader is gone."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
