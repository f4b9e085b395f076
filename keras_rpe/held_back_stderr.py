"""Silence for libraries that write to the file descriptor of stderr, past Python."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def held_back_stderr(show_on_error: bool = True) -> Iterator[None]:
    """Keep what is written to stderr in this block to itself, unless the block fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            # Where sys.stderr is not that descriptor, as in a notebook, it is held back as well.
            with os.fdopen(os.dup(2), "w") as copy, redirect_stderr(copy):
                yield
        except BaseException:
            if show_on_error:
                held.seek(0)
                os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
