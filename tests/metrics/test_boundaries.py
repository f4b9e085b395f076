import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from keras_rpe.metrics import (
    BoundaryFigures,
    boundaries,
    boundary_benchmark,
    boundary_matching,
)
from keras_rpe.metrics.boundaries import count_images
from keras_rpe.metrics.boundary_matching import boundary_counts

LEVELS = np.array([0.3, 0.6])


@pytest.fixture
def images():
    """Three images of different sizes, with two annotators or one."""
    rng = np.random.default_rng(2)
    predictions, truths = [], []
    for height, width, annotators in ((30, 40, 2), (40, 30, 1), (25, 25, 2)):
        truth = np.zeros((height, width), bool)
        truth[height // 2] = True
        truth[:, width // 3] = True
        noise = rng.random((height, width)) * (rng.random((height, width)) < 0.05)
        predictions.append(np.maximum(np.roll(truth, 1, 0) * rng.random(), noise))
        truths.append([np.roll(truth, shift, 1) for shift in range(annotators)])
    return predictions, truths


def test_figures_of_the_official_benchmark(golden_root):
    folder = golden_root / "bsds_bench"
    if not folder.is_dir():
        pytest.skip(f"reference outputs not found in {folder}")
    expected = json.loads((folder / "expected.json").read_text())
    predictions, truths = [], []
    for image in expected["best_per_image"]:
        name = image["image"]
        predictions.append(np.asarray(Image.open(folder / "contours" / f"{name}.png")) / 255)
        annotations = loadmat(folder / "groundTruth" / f"{name}.mat")["groundTruth"][0]
        truths.append([one["Boundaries"][0, 0] > 0 for one in annotations])
    figures = boundary_benchmark(predictions, truths, thresholds=5)
    for key in ("threshold", "recall", "precision"):
        ours = getattr(figures, {"threshold": "thresholds"}.get(key, key))
        theirs = [row[key] for row in expected["thresholds"]]
        np.testing.assert_allclose(ours, theirs, atol=0.002)
    for scale in ("ods", "ois"):
        theirs = expected[scale.upper()]
        assert getattr(figures, scale) == pytest.approx(theirs["f"], abs=0.002)
        for key in ("recall", "precision"):
            assert getattr(figures, f"{scale}_{key}") == pytest.approx(theirs[key], abs=0.002)
    assert figures.ods_threshold == pytest.approx(expected["ODS"]["threshold"], abs=0.002)
    assert figures.ap == pytest.approx(expected["AP"], abs=0.002)
    image = expected["best_per_image"][0]
    one = boundary_benchmark(predictions[:1], truths[:1], thresholds=5, processes=1)
    assert one.ois == pytest.approx(image["f"], abs=0.002)


def test_processes_and_generators_give_the_same_figures(images, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # As on a terminal, with a bar.
    predictions, truths = images
    one = boundary_benchmark(predictions, truths, 9, 0.02, processes=1)
    two = boundary_benchmark(iter(predictions), iter(truths), 9, 0.02, processes=2, progress=True)
    for name in ("ods", "ods_threshold", "ois", "ap"):
        assert getattr(one, name) == getattr(two, name)
        assert 0 < getattr(one, name) < 1
    np.testing.assert_array_equal(one.precision, two.precision)
    np.testing.assert_array_equal(one.recall, two.recall)
    captured = capfd.readouterr()
    assert "Boundaries" in captured.err
    assert not captured.out


def test_a_log_says_how_far_it_is(images, capfd, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(boundaries, "_BETWEEN_LINES", 0)
    boundary_benchmark(*images, 3, 0.02, processes=1, progress=True)
    number = len(images[0])
    expected = [f"Boundaries: {k} of {number} images, 0 minutes left" for k in range(1, number)]
    assert capfd.readouterr().err.splitlines() == expected


def test_an_empty_prediction_and_empty_truths_score_zero():
    line, nothing = np.eye(8, dtype=bool), np.zeros((8, 8), bool)
    for prediction, truth in ((nothing, line), (line, nothing), (nothing, nothing)):
        figures = boundary_benchmark([prediction], [[truth]], 5, processes=1)
        assert figures.ods == figures.ois == figures.ap == 0
        assert np.isfinite(figures.precision).all()
        assert np.isfinite(figures.recall).all()


def test_any_annotator_makes_a_pixel_right_and_all_count_for_recall():
    first, second = np.zeros((2, 30, 30), bool)
    first[5], second[20] = True, True
    prediction = np.where(first, 0.9, 0)
    prediction[12] = 0.3
    figures = boundary_benchmark([prediction], [[first, second]], [0.2, 0.8], processes=1)
    assert figures.precision.tolist() == [0.5, 1.0]
    assert figures.recall.tolist() == [0.5, 0.5]
    figures = boundary_benchmark([prediction], [[first, first]], [0.2, 0.8], processes=1)
    assert figures.recall.tolist() == [1.0, 1.0]


def test_every_image_has_its_own_best_threshold():
    counts = np.array(
        [
            [[10, 10, 10, 10], [2, 10, 2, 2]],
            [[10, 10, 10, 40], [8, 10, 8, 10]],
        ]
    )
    figures = BoundaryFigures.from_counts(counts, np.array([0.2, 0.6]))
    assert figures.recall.tolist() == [1.0, 0.5]
    np.testing.assert_allclose(figures.precision, [0.4, 10 / 12])
    assert figures.ois_recall == pytest.approx(0.9)
    assert figures.ois_precision == pytest.approx(0.9)
    assert figures.ois == pytest.approx(0.9)
    assert figures.ods < figures.ois
    single = BoundaryFigures.from_counts(np.array([[[5, 10, 5, 5]]]), np.array([0.5]))
    assert (single.ods_threshold, single.ods_recall, single.ods_precision) == (0.5, 0.5, 1.0)
    counts = np.array([[[9, 10, 2, 10], [2, 10, 9, 10]]])
    between = BoundaryFigures.from_counts(counts, np.array([0.2, 0.4]))
    assert between.ods_threshold == pytest.approx(0.3, abs=0.002)
    assert between.ods == pytest.approx(0.55, abs=1e-3)


def test_area_counts_nothing_outside_the_measured_recalls():
    counts = np.array([[[80, 100, 50, 100], [40, 100, 100, 100]]])
    figures = BoundaryFigures.from_counts(counts, np.array([0.2, 0.4]))
    at = np.arange(40, 81) / 100
    assert figures.ap == pytest.approx((1 - (at - 0.4) / 0.4 * 0.5).sum() * 0.01)


@pytest.mark.parametrize(
    ("prediction", "truths", "message"),
    [
        (np.eye(3), [], "`truths` must hold at least one annotator"),
        (np.eye(3), [np.eye(3) > 0, np.ones((3, 4), bool)], r"`truths\[1\]`.*\(3, 4\)"),
        (np.eye(3), [np.eye(3)], r"`truths\[0\]`.*float64"),
        (np.full((3, 3), np.nan), [np.eye(3) > 0], "prediction.*nan"),
        (np.zeros((3, 3, 1)), [np.eye(3) > 0], r"prediction.*\(3, 3, 1\)"),
        ([["a"]], [np.eye(3) > 0], "prediction.*<U1"),
    ],
)
def test_bad_images_are_refused_by_their_number(prediction, truths, message):
    good = np.eye(3), [np.eye(3) > 0]
    with pytest.raises(ValueError, match=f"^Image 1: .*{message}"):
        boundary_benchmark([good[0], prediction], [good[1], truths], 2, processes=1)


def test_bad_arguments_are_refused(images):
    bad = {"thresholds": (0, None, [0.0, 1], [0.5, 0.5]), "processes": (0,), "max_distance": (1.0,)}
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match=f"`{name}` must"):
                boundary_benchmark(*images, **{name: value})
    predictions, truths = images
    with pytest.raises(ValueError, match="only 2 in `truths`"):
        boundary_benchmark(predictions, truths[:2], 2, processes=2)
    with pytest.raises(ValueError, match="`predictions` must hold at least one map"):
        boundary_benchmark([], [], processes=1)


def random_images(number):
    rng = np.random.default_rng(4)
    for _ in range(number):
        shape = tuple(rng.integers(8, 20, 2))
        yield rng.random(shape), rng.random((2, *shape)) < 0.1


def test_processes_keep_the_order_and_take_images_as_they_are_needed():
    images, taken = list(random_images(9)), []
    answers = count_images((taken.append(0) or image for image in images), LEVELS, 0.1, 2)
    first = next(answers)
    assert len(taken) <= 5
    for answer, image in zip([first, *answers], images, strict=True):
        np.testing.assert_array_equal(answer, boundary_counts(*image, LEVELS, 0.1))


def test_errors_among_the_images_and_in_a_process_come_through(monkeypatch, tmp_path):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )

    def images():
        yield from random_images(1)
        raise KeyError("no such image")

    with pytest.raises(KeyError, match="no such image"):
        list(count_images(images(), LEVELS, 0.1, 2))
    full = np.ones((400, 400))
    with pytest.raises(ValueError, match="`max_distance` must leave at most"):
        list(count_images([(full, full[None] > 0)], LEVELS, 0.5, 2))
    script = tmp_path / "ends.py"
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr(boundary_matching, "__file__", str(script))
    with pytest.raises(RuntimeError, match="ended before its work was done"):
        list(count_images(random_images(3), LEVELS, 0.1, 2))
    assert started
    assert all(process.poll() is not None for process in started)


def test_processes_do_without_the_package():
    program = f"""
import runpy, sys
runpy.run_path({boundary_matching.__file__!r})
print(sorted({{"tensorflow", "keras", "keras_rpe"}} & set(sys.modules)))
"""
    command = [sys.executable, "-P", "-c", program]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.slow
def test_a_script_without_a_guard_may_use_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from keras_rpe.metrics import boundary_benchmark\n"
        "line = np.eye(9, dtype=bool)\n"
        "print(boundary_benchmark([line * 0.9] * 4, [[line]] * 4, 3, processes=2).ods)\n"
    )
    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    assert done.stdout == "1.0\n"
