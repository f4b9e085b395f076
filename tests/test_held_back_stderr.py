import os
import sys

import pytest

from keras_rpe.held_back_stderr import held_back_stderr


def fail(show_on_error: bool) -> None:
    with held_back_stderr(show_on_error):
        write_both()
        raise ValueError("mine")


def write_both() -> None:
    os.write(2, b"below Python\n")
    print("from Python", file=sys.stderr)


def test_nothing_is_shown(capfd):
    with held_back_stderr():
        write_both()
    assert capfd.readouterr().err == ""


def test_shown_when_the_block_fails(capfd):
    with pytest.raises(ValueError, match="mine"):
        fail(True)
    assert sorted(capfd.readouterr().err.split("\n")) == ["", "below Python", "from Python"]


def test_not_even_then(capfd):
    with pytest.raises(ValueError, match="mine"):
        fail(False)
    assert capfd.readouterr().err == ""


def test_stderr_works_again(capfd):
    with held_back_stderr():
        write_both()
    write_both()
    assert sorted(capfd.readouterr().err.split("\n")) == ["", "below Python", "from Python"]
