import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.visualization import embedding_colors, embedding_loops, overlay_instances


@pytest.mark.parametrize(("dim", "embed_background"), [(2, True), (6, True), (6, False)])
def test_loops_side_by_side(dim, embed_background):
    model = InstanceSegmenter(
        unet_encoder((8, 16), blocks=1), embedding_dim=dim, iterations=2, fusion_filters=8,
        inference_iterations=3, embed_background=embed_background,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, (19, 30, 3), "uint8")
    picture = embedding_loops(model, image, titles=False)
    assert picture.shape == (19, 5 * 30 + 4 * 6, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(
        picture[:, :30], overlay_instances(image, np.zeros((19, 30), int))
    )
    embedding, scores = map(np.asarray, model.embed(image[None].astype("float32")))
    loops = np.asarray(model.shift(embedding, scores, return_sequences=True))
    shown = scores[0, 1::2, 1::2] >= (-1 if embed_background else 0.5)
    maps = embedding_colors(*(x * shown for x in (embedding[0], *loops[:, 0])))
    for index, colors in enumerate(maps, start=1):
        part = picture[:, 36 * index : 36 * index + 30]
        np.testing.assert_array_equal(part, colors.repeat(2, 0).repeat(2, 1)[:19, :30])
        assert (picture[:, 36 * index - 6 : 36 * index] == 255).all()
    titled = embedding_loops(model, image)
    assert titled.shape[0] > 19
    np.testing.assert_array_equal(titled[-19:], picture)
    assert titled[:-19].min() < 128


def test_loops_refuse_a_stack():
    model = InstanceSegmenter(unet_encoder((8, 16), blocks=1), embedding_dim=4, iterations=1)
    with pytest.raises(ValueError, match="`image`"):
        embedding_loops(model, np.zeros((3, 32, 32, 3)))


def test_scale_and_random_projection():
    model = InstanceSegmenter(
        unet_encoder((8, 16), blocks=1), embedding_dim=6, iterations=1, fusion_filters=8,
        inference_iterations=1, embed_background=True,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), "uint8")
    random = {"projection": "random", "seed": 5}
    plain = embedding_loops(model, image, titles=False, **random)
    large = embedding_loops(model, image, titles=False, scale=3, **random)
    assert large.shape == (48, 3 * 48 + 2 * 6, 3)
    for part in range(3):
        small = plain[:, 22 * part : 22 * part + 16]
        np.testing.assert_array_equal(
            large[:, 54 * part : 54 * part + 48], small.repeat(3, 0).repeat(3, 1)
        )
    embedding, _ = model.embed(image[None].astype("float32"))
    (expected,) = embedding_colors(np.asarray(embedding)[0], **random)
    np.testing.assert_array_equal(plain[:, 22:38], expected.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"scale": 2.0}, {"projection": "x"}])
def test_loops_refuse_options(wrong):
    # No model is asked for: the arguments are checked before anything runs.
    with pytest.raises(ValueError, match=rf"`{next(iter(wrong))}` must .*Received"):
        embedding_loops(None, np.zeros((16, 16)), **wrong)
