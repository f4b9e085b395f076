"""Many requests of mixed sizes to the REST server: right answers, steady memory, no tracing."""

import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import tensorflow as tf
from export.serving_processes import SERVING, Server, labels_over_rest, running

from keras_rpe_cli.demo import demo_image

CLIENTS = 4
REQUESTS = 500


@pytest.fixture(scope="module")
def server(saved_model, tmp_path_factory) -> Iterator[Server]:
    """A server of its own, since what others asked of it would show in its memory."""
    log = tmp_path_factory.mktemp("load") / "server.log"
    with running("kserve_server.py", saved_model, log) as server:
        yield server


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Twelve parts of stained tissue, 64 to 160 pixels a side, no two of the same size."""
    tissue = np.repeat(demo_image()[..., None], 3, axis=-1)
    sides = np.linspace(64, 160, 12).astype(int)
    parts = [
        tissue[17 * k : 17 * k + side, 23 * k : 23 * k + other]
        for k, (side, other) in enumerate(zip(sides, np.roll(sides, 5)))
    ]
    return [np.ascontiguousarray(part) for part in parts]


def functions_held(server: Server) -> float:
    text = requests.get(f"http://127.0.0.1:{server.port}/metrics", timeout=10).text
    return float(re.search(r"^tensorflow_functions (\S+)$", text, re.M)[1])


@pytest.mark.slow
def test_load(server, images, nuclei) -> None:
    expected = [nuclei.predict_instances(image).labels for image in images]
    assert sum(labels.max() > 1 for labels in expected) > 6
    functions = functions_held(server)

    def ask(number: int) -> int:
        k = number % len(images)
        # Odd ones as files, even ones as numbers; not in step with the sizes.
        labels = labels_over_rest(server, images[k], as_file=number // len(images) % 2 == 1)
        np.testing.assert_array_equal(labels, expected[k])
        return server.memory

    started = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        memory = np.array(list(clients.map(ask, range(REQUESTS))))
    seconds = time.monotonic() - started

    # What grew over the last 300 requests, from one window of 50 to another.
    before, after = np.median(memory[150:200]), np.median(memory[450:])
    print(
        f"{REQUESTS} requests, {CLIENTS} clients: {seconds:.1f} s; resident MB after 1, 200, 500: "
        f"{memory[0] / 2**20:.0f}, {before / 2**20:.0f}, {after / 2**20:.0f}"
    )
    assert after < 1.02 * before
    assert functions_held(server) == functions


def test_the_count_of_functions_would_show_tracing(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SERVING))
    monkeypatch.delitem(sys.modules, "served_signatures", raising=False)
    from served_signatures import function_count

    @tf.function
    def double(x: tf.Tensor) -> tf.Tensor:
        return 2 * x

    before = function_count()
    for side in (3, 4, 5):
        double(tf.zeros(side))
    assert function_count() > before
