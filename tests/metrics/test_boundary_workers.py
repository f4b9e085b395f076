import subprocess
import sys

import numpy as np
import pytest

import keras_rpe.metrics.boundary_workers as boundary_workers
from keras_rpe.metrics.boundaries import boundary_counts
from keras_rpe.metrics.boundary_workers import BoundaryWorkers

LEVELS = np.array([0.3, 0.6])


def random_images(number):
    rng = np.random.default_rng(4)
    for _ in range(number):
        shape = tuple(rng.integers(8, 20, 2))
        yield rng.random(shape), rng.random((2, *shape)) < 0.1


def test_answers_keep_the_order_of_the_images():
    images = list(random_images(9))
    with BoundaryWorkers(2, LEVELS, 0.1) as workers:
        answers = list(workers.map(iter(images)))
    assert len(answers) == 9
    for answer, image in zip(answers, images):
        np.testing.assert_array_equal(answer, boundary_counts(*image, LEVELS, 0.1))


def test_images_are_taken_as_they_are_needed():
    taken = []
    images = (taken.append(0) or image for image in random_images(9))
    with BoundaryWorkers(1, LEVELS, 0.1) as workers:
        next(workers.map(images))
        assert len(taken) <= 3


def test_an_error_among_the_images_ends_the_processes():
    def images():
        yield from random_images(1)
        raise KeyError("no such image")

    workers = BoundaryWorkers(2, LEVELS, 0.1)
    with pytest.raises(KeyError, match="no such image"), workers:
        list(workers.map(images()))
    assert all(process.poll() is not None for process in workers._all)


def test_a_process_that_ends_is_reported(monkeypatch, tmp_path):
    script = tmp_path / "ends.py"
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr(boundary_workers, "_SCRIPT", script)
    with (
        pytest.raises(RuntimeError, match=r"ended before its work was done"),
        BoundaryWorkers(2, LEVELS, 0.1) as workers,
    ):
        list(workers.map(random_images(3)))


def test_processes_do_without_tensorflow():
    program = f"""
import runpy, sys
space = runpy.run_path({str(boundary_workers._SCRIPT)!r})
space["_skip_package_imports"]()
import keras_rpe.metrics.boundaries
print(sorted({{"tensorflow", "keras", "skimage", "keras_rpe.models"}} & set(sys.modules)))
"""
    command = [sys.executable, "-P", "-c", program]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"
