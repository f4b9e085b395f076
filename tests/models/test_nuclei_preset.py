"""The weights that come with the package, on images that they were not trained on."""

import numpy as np
import pytest

from keras_rpe.data import find_label_pairs, read_image, read_labels, split_pairs
from keras_rpe.metrics import average_precision
from keras_rpe.models import InstanceSegmenter
from keras_rpe_cli.demo import demo_image


@pytest.fixture(scope="module")
def nuclei() -> InstanceSegmenter:
    return InstanceSegmenter.from_preset("nuclei")


def test_a_section_of_tissue(nuclei: InstanceSegmenter) -> None:
    result = nuclei.predict_instances(demo_image()[200:456, 150:406])
    assert 50 < len(result) < 200
    assert np.median(result.scores) > 0.7


def test_precision_on_real_images_held_out(nuclei: InstanceSegmenter, data_root) -> None:
    _, validation = split_pairs(find_label_pairs(data_root / "dsb2018" / "train"), 1 / 7, seed=0)
    true, found = [], []
    for pair in validation:
        image = read_image(pair.image)
        if image.shape == (256, 256):
            true.append(read_labels(pair.instances))
            found.append(nuclei.predict_instances(image).labels)
    assert len(true) >= 20
    assert average_precision(true, found, thresholds=(0.5,))[0] >= 0.7
