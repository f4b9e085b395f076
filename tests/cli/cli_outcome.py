"""How a command ended, for the tests."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def assert_one_line_error(outcome: Outcome, *parts: str) -> None:
    """Check that a command ended in one line on stderr that says all of the parts."""
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
