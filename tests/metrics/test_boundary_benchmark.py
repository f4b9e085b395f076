import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from keras_rpe.metrics import boundary_benchmark


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


@pytest.fixture(scope="module")
def official(golden_root):
    folder = golden_root / "bsds_bench"
    if not folder.is_dir():
        pytest.skip(f"reference outputs not found in {folder}")
    return folder, json.loads((folder / "expected.json").read_text())


def official_image(folder, name):
    prediction = np.asarray(Image.open(folder / "contours" / f"{name}.png")) / 255
    annotations = loadmat(folder / "groundTruth" / f"{name}.mat")["groundTruth"][0]
    return prediction, [one["Boundaries"][0, 0] > 0 for one in annotations]


def test_figures_of_the_official_benchmark(official):
    folder, expected = official
    names = [image["image"] for image in expected["best_per_image"]]
    predictions, truths = zip(*(official_image(folder, name) for name in names))
    figures = boundary_benchmark(predictions, truths, thresholds=5)
    for key in ("threshold", "recall", "precision"):
        ours = getattr(figures, {"threshold": "thresholds"}.get(key, key))
        theirs = [row[key] for row in expected["thresholds"]]
        np.testing.assert_allclose(ours, theirs, atol=0.002)
    assert figures.ods == pytest.approx(expected["ODS"]["f"], abs=0.002)
    assert figures.ods_threshold == pytest.approx(expected["ODS"]["threshold"], abs=0.002)
    assert figures.ods_recall == pytest.approx(expected["ODS"]["recall"], abs=0.002)
    assert figures.ods_precision == pytest.approx(expected["ODS"]["precision"], abs=0.002)
    assert figures.ois == pytest.approx(expected["OIS"]["f"], abs=0.002)
    assert figures.ois_recall == pytest.approx(expected["OIS"]["recall"], abs=0.002)
    assert figures.ois_precision == pytest.approx(expected["OIS"]["precision"], abs=0.002)
    assert figures.ap == pytest.approx(expected["AP"], abs=0.002)


def test_figures_of_single_images_of_the_official_benchmark(official):
    folder, expected = official
    for image in expected["best_per_image"]:
        prediction, truths = official_image(folder, image["image"])
        figures = boundary_benchmark([prediction], [truths], thresholds=5, processes=1)
        best = np.argmin(np.abs(figures.thresholds - image["threshold"]))
        assert figures.recall[best] == pytest.approx(image["recall"], abs=0.002)
        assert figures.precision[best] == pytest.approx(image["precision"], abs=0.002)
        assert figures.ois == pytest.approx(image["f"], abs=0.002)


def test_processes_and_generators_give_the_same_figures(images, capfd):
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


def test_a_perfect_prediction_scores_one():
    truth = np.zeros((20, 30), bool)
    truth[5] = True
    figures = boundary_benchmark([truth * 0.999], [[truth, truth]], 9, processes=1)
    assert figures.ods == figures.ois == 1
    assert figures.ods_precision == figures.ods_recall == 1
    assert figures.precision.tolist() == figures.recall.tolist() == [1.0] * 9


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


def test_thick_responses_are_thinned():
    truth = np.zeros((15, 40), bool)
    truth[7, 3:37] = True
    thick = np.zeros((15, 40))
    thick[6:9, 2:38] = 0.7
    figures = boundary_benchmark([thick], [[truth]], [0.5], 0.01, processes=1)
    assert figures.ods_precision == 1
    assert figures.ods_recall > 0.95


def test_bad_images_are_refused(images):
    predictions, truths = images
    truth = truths[0][0]
    for processes in (1, 2):
        with pytest.raises(ValueError, match=r"equally long\. Received: only 2 in `truths`"):
            boundary_benchmark(predictions, truths[:2], 2, processes=processes)
    with pytest.raises(ValueError, match=r"`predictions` must hold at least one map"):
        boundary_benchmark([], [], processes=1)
    with pytest.raises(ValueError, match=r"Image 0: `truths` must hold at least one annotator"):
        boundary_benchmark(predictions[:1], [[]])
    with pytest.raises(ValueError, match=r"Image 0: The maps of `truths`.*\(40, 30\) in.*\[1\]"):
        boundary_benchmark(predictions[:1], [[truth, truths[1][0]]])
    with pytest.raises(ValueError, match=r"Image 0: `truths\[0\]` must be a boolean map"):
        boundary_benchmark(predictions[:1], [[truth * 1.0]])
    for value in (np.nan, np.inf, -0.1, 1.1, 255):
        bad = np.where(truth, value, 0)
        with pytest.raises(ValueError, match=r"Image 0: A prediction must be finite and within"):
            boundary_benchmark([bad], [[truth]])
    for bad in (np.zeros((3, 4, 1)), np.zeros((0, 4)), np.array([["a"]]), 0.5):
        with pytest.raises(ValueError, match=r"Image 0: A prediction must be a map"):
            boundary_benchmark([bad], [[truth]])
    with pytest.raises(ValueError, match=r"`truths` must be a sequence of lists.*int"):
        boundary_benchmark(predictions[:1], 3)
    with pytest.raises(ValueError, match=r"Image 0: `truths` must be a list of maps.*NoneType"):
        boundary_benchmark(predictions[:1], [None])


@pytest.mark.parametrize(
    "thresholds", [0, -1, 10_001, True, 0.5, None, [], [[0.5]], [0.0, 0.5], [0.5, 0.5], ["a"]]
)
def test_bad_thresholds_are_refused(images, thresholds):
    with pytest.raises(ValueError, match=r"`thresholds` must"):
        boundary_benchmark(*images, thresholds=thresholds)


@pytest.mark.parametrize("processes", [0, -2, 1.5, "2", 5000])
def test_bad_numbers_of_processes_are_refused(images, processes):
    with pytest.raises(ValueError, match=r"`processes` must be None or from 1 to 1024"):
        boundary_benchmark(*images, processes=processes)
