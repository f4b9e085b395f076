import numpy as np
import pytest

from keras_rpe.layers import InstanceDecoder
from keras_rpe.metrics import average_precision
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.instance_segmenter import optimize_thresholds


class _Known:
    """A model whose maps are known: two touching squares, with a rim of low scores, and a speck."""

    ignore_label = -1

    def __init__(self) -> None:
        self.decoder = InstanceDecoder(0.5, 0.9, min_area=4)
        self.labels = np.zeros((24, 32), "int32")
        self.labels[4:20, 4:16], self.labels[4:20, 16:28] = 1, 2
        scores = np.where(self.labels > 0, 0.62, 0.1)
        scores[3:21, 2:4] = scores[3:21, 28:30] = 0.55
        scores[0:3, 0:3] = 0.9
        self.scores = scores.astype("float32")[None, ..., None]
        angle = np.where(self.labels == 1, 0.0, 1.0)[..., None]  # s = 0.77 between the two
        self.x = np.concatenate([np.cos(angle), np.sin(angle)], -1).astype("float32")[None]

    def embed(self, images):
        return self.x, self.scores

    def shift(self, embedding, scores):
        return embedding


def test_finds_the_thresholds_that_fit() -> None:
    model = _Known()
    image = np.zeros((24, 32))
    decoder, precision = optimize_thresholds(
        model, [image] * 2, [model.labels] * 2, iou_thresholds=(0.5, 0.95)
    )
    assert precision == 1.0
    assert 0.77 < decoder.similarity_threshold <= 0.98
    assert 0.55 < decoder.foreground_threshold <= 0.62
    assert decoder.min_area > 9
    # With the thresholds before, the rim and the speck are counted.
    before = np.asarray(model.decoder(model.x, model.scores)["labels"])[0]
    assert average_precision([model.labels], [before], thresholds=(0.95,))[0] < 1


def test_void_pixels_count_neither_way() -> None:
    model = _Known()
    void = model.labels.copy()
    void[3:21, 2:4] = void[3:21, 28:30] = void[0:3, 0:3] = -1  # the rim and the speck
    decoder, precision = optimize_thresholds(model, [np.zeros((24, 32))], [void], (0.95,))
    assert precision == 1.0
    assert decoder.foreground_threshold == model.decoder.foreground_threshold


def test_a_setting_as_good_is_kept() -> None:
    model = _Known()
    model.decoder = InstanceDecoder(0.6, 0.87, min_area=13, max_instances=7, name="mine")
    decoder, precision = optimize_thresholds(model, [np.zeros((24, 32))], [model.labels])
    assert precision == 1.0
    assert decoder.get_config() == model.decoder.get_config()


@pytest.mark.slow
def test_the_segmenter_predicts_with_them(tmp_path) -> None:
    model = InstanceSegmenter.from_preset("nuclei")
    image = np.random.default_rng(0).integers(0, 255, (40, 56), dtype="uint8")
    model.predict_instances(image)
    model.predict(np.zeros((1, 16, 16, 3), "uint8"), verbose=0)
    labels = np.zeros((40, 56), "int32")
    labels[:, :28] = 3
    precision = model.optimize_thresholds([image], [labels], iou_thresholds=(0.5,))
    found = model.predict_instances(image).labels
    assert precision == pytest.approx(average_precision([labels], [found], thresholds=(0.5,))[0])
    batch = np.repeat(image[None, ..., None], 3, axis=-1)
    np.testing.assert_array_equal(model.predict(batch, verbose=0)["labels"][0], found)
    model.save_to_preset(tmp_path / "mine")
    again = InstanceSegmenter.from_preset(tmp_path / "mine")
    assert again.decoder.get_config() == model.decoder.get_config()


def test_bad_input() -> None:
    model, image = _Known(), np.zeros((24, 32))
    with pytest.raises(ValueError, match="`images` must hold at least one"):
        optimize_thresholds(model, [], [])
    with pytest.raises(ValueError, match=r"sizes of the images\. Received"):
        optimize_thresholds(model, [image], [np.zeros((3, 3), int)])
    with pytest.raises(ValueError, match="equally many. Received: no label map 1"):
        optimize_thresholds(model, [image, image], [model.labels])
