"""The object proposer that comes with the package, on photographs that it was not trained on."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from keras_rpe.data import VOID, find_label_pairs, read_label_pair, split_pairs
from keras_rpe.metrics import AverageRecall, GroundTruth
from keras_rpe.models import ObjectProposer
from keras_rpe.models.presets import preset_folder

MOST_BYTES = 30e6


@pytest.fixture(scope="module")
def objects() -> ObjectProposer:
    return ObjectProposer.from_preset("objects")


def test_it_is_small() -> None:
    files = Path(preset_folder("objects")).iterdir()
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


def test_the_cup_is_among_the_best(objects: ObjectProposer) -> None:
    proposals = objects.predict_proposals(data.coffee(), max_proposals=10)
    assert np.all(np.diff(proposals.scores) <= 0)
    # The middle of the cup is in one of them, and the corners of the table are not in it.
    with_cup = [mask for mask in proposals.masks if mask[170:200, 280:310].mean() > 0.9]
    assert any(not mask[:40, :40].any() and not mask[-40:, -40:].any() for mask in with_cup)


@pytest.mark.slow
def test_photographs_of_single_objects(objects: ObjectProposer, data_root: Path) -> None:
    pairs = split_pairs(find_label_pairs(data_root / "dali_coco" / "all"), 0.2)[1]
    recall = AverageRecall((10,), exclude_void=True)
    for pair in pairs:
        image, labels, _ = read_label_pair(pair, ignore_label=255)
        proposals = objects.predict_proposals(image, max_proposals=10)
        recall.update(GroundTruth(labels, ignore_label=VOID), proposals.masks)
    assert recall.result()["AR@10"] > 0.4
    assert recall.result()["AR50@10"] > 0.6


@pytest.mark.slow
def test_exports_equal_keras(objects: ObjectProposer, tmp_path: Path) -> None:
    from keras_rpe.export import load_served

    image = data.coffee()[:200, :300]
    expected = objects.predict_proposals(image)
    for name, kind in (("objects", "tf_saved_model"), ("objects.tflite", "litert")):
        served = load_served(objects.export(tmp_path / name, format=kind))
        found = served.predict_proposals(image)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        np.testing.assert_array_equal(found.masks, expected.masks)
