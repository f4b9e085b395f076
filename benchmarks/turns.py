"""Measure methods in turn, each in a separate process."""

import json
import os
import re
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SLOW, FAILED, LEFT_OUT = "slow", "failed", "left out"


def answer_turns(run: Callable[[], object], runs: int, idle: int) -> None:
    """Say that all is ready, run once for each line on stdin, and print time and memory as JSON.

    Args:
        run: The function to measure.
        runs: The number of runs.
        idle: The peak memory of the process before, in KiB, from `peak_memory`.
    """
    print("ready", flush=True)
    for _ in range(runs):
        sys.stdin.readline()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        megabytes = (peak_memory() - idle) / 1024
        print(json.dumps({"seconds": seconds, "megabytes": megabytes}), flush=True)


def peak_memory() -> int:
    """Peak resident memory of this process so far, in KiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # The other figure starts at the peak of the parent.
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def take_turns(
    commands: dict[str, list[str]],
    runs: int,
    limit: float | None = None,
    repeat_limit: float = float("inf"),
) -> dict[str, list[dict[str, Any]]]:
    """Start a Python process for each method, wait for all, and let them run one after the other.

    Args:
        commands: The script and arguments of each method, which ends in `answer_turns`.
        runs: The number of runs of each.
        limit: Seconds after which a run is stopped; with None there is no limit.
        repeat_limit: A method whose run takes more seconds than this does not run again.

    Returns:
        The `seconds` and `megabytes` of each method, run by run. A method that did not run has an
        `outcome` instead: `SLOW`, `FAILED` or `LEFT_OUT`.
    """
    workers = {
        method: subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        for method, command in commands.items()
    }
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in commands}
    ended: dict[str, str] = {}
    try:
        for method, worker in workers.items():
            if not worker.stdout.readline():
                ended[method] = FAILED
        for _ in range(runs):
            for method, worker in workers.items():
                if method not in ended:
                    worker.stdin.write(b"\n")
                    in_time = select.select([worker.stdout], [], [], limit)[0]
                    answer = worker.stdout.readline() if in_time else None
                    if answer:
                        results[method].append(json.loads(answer))
                        if results[method][-1]["seconds"] <= repeat_limit:
                            continue
                        ended[method] = LEFT_OUT
                    else:
                        results[method].append({"outcome": FAILED if in_time else SLOW})
                        ended[method] = results[method][-1]["outcome"]
                    worker.kill()  # Otherwise it would disturb the others.
                else:
                    results[method].append({"outcome": ended[method]})
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()
    return results
