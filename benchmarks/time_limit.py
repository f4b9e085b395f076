"""Stands between `turns.take_turns` and a method, and gives up on a run that takes too long.

    python benchmarks/time_limit.py SECONDS REPEAT_SECONDS GIGABYTES SCRIPT ARGUMENT...

The script prints a line when it is ready, and then ends in `turns.answer_turns`. A run that takes
more than SECONDS is stopped; after one above REPEAT_SECONDS the others are left out; and the script
may take GIGABYTES. What did not run is answered by one of the words `SLOW`, `FAILED`, `LEFT_OUT` as
the "outcome" of a run.
"""

import json
import resource
import select
import subprocess
import sys
from typing import BinaryIO

SLOW, FAILED, LEFT_OUT = "slow", "failed", "left out"


def relay(child: subprocess.Popen, limit: float, repeat_limit: float) -> None:
    """Hand lines of stdin to the child and its answers to stdout."""
    outcome = None if child.stdout.readline() else FAILED  # The line that tells it is ready.
    for line in sys.stdin:
        if outcome is None:
            child.stdin.write(line.encode())
            answer = _line_in_time(child.stdout, limit)
            if answer:
                print(answer.decode(), end="", flush=True)
                if json.loads(answer)["seconds"] > repeat_limit:
                    outcome = LEFT_OUT
                    child.kill()
                continue
            outcome = SLOW if answer is None else FAILED
            child.kill()  # It would disturb the others.
        print(json.dumps({"outcome": outcome}), flush=True)


def _line_in_time(stream: BinaryIO, limit: float) -> bytes | None:
    """The next line, empty at the end of the stream, or None if it does not come in time."""
    ready, _, _ = select.select([stream], [], [], limit)
    return stream.readline() if ready else None


def main() -> None:
    """Start the script, and relay until stdin ends."""
    limit, repeat_limit, gigabytes = map(float, sys.argv[1:4])
    memory = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    child = subprocess.Popen(
        [sys.executable, *sys.argv[4:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    try:
        relay(child, limit, repeat_limit)
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    main()
