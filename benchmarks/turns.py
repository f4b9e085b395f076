"""Methods measured in turn, each in a process of its own."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def answer_turns(run: Callable[[], object], runs: int, idle: int) -> None:
    """Run once for each line on stdin, and print the seconds and the peak memory as JSON.

    Args:
        run: What is measured.
        runs: How often.
        idle: Peak memory of the process before, in KiB, as `peak_memory` gives it.
    """
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
        # The other figure starts at that of the parent.
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def take_turns(commands: dict[str, list[str]], runs: int) -> dict[str, list[dict[str, float]]]:
    """Start a Python process for each method and let them run one after the other.

    Args:
        commands: Script and arguments of each method, which ends in `answer_turns`.
        runs: How often each runs.

    Returns:
        What each printed, run by run.
    """
    workers = {
        method: subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        for method, command in commands.items()
    }
    results: dict[str, list[dict[str, float]]] = {method: [] for method in commands}
    for _ in range(runs):
        for method, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            results[method].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    return results
