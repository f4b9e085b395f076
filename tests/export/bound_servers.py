"""Servers in processes of their own that do not outlive the process that started them."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 180
# Runs a script, and ends when its standard input closes. The system closes it when the process that
# holds the other end has ended, however that came about, so that no server outlives the tests.
BOUND = """
import os, runpy, sys, threading

def watch():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=watch, daemon=True).start()
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class Server:
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/models/nuclei"


@contextlib.contextmanager
def running(script: Path, *arguments: object, log: Path) -> Iterator[Server]:
    """A server that listens; it has ended when the block is left, or this process has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", BOUND, script, *arguments, "--port", str(port)]
    environment = {**os.environ, "COLUMNS": "100"}
    with (
        log.open("wb") as file,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment
        ) as process,
    ):
        try:
            end = time.monotonic() + START_SECONDS
            while not listens(port):
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"{script} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield Server(port, log)
        finally:
            process.kill()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
