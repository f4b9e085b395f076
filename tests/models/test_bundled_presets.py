"""The weights that come with the package, on images that they were not trained on."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from keras_rpe.data import (
    VOID,
    digits,
    find_boundary_pairs,
    label_folder,
    read_image,
)
from keras_rpe.data.bsds import read_boundary_pair
from keras_rpe.export import load_served
from keras_rpe.metrics import (
    AverageRecall,
    GroundTruth,
    MaskAveragePrecision,
    average_precision,
    boundary_benchmark,
    class_iou,
    matching,
)
from keras_rpe.models import (
    BoundaryDetector,
    InstanceSegmenter,
    ObjectProposer,
    SemanticSegmenter,
    preset_names,
)
from keras_rpe.models.presets import preset_folder
from keras_rpe_cli.demo import demo_image

MOST_BYTES = 16e6


@pytest.mark.parametrize("name", preset_names())
def test_it_is_small(name: str) -> None:
    files = Path(preset_folder(name)).iterdir()
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


def test_nuclei_in_a_section_of_tissue_and_on_real_images_held_out(data_root) -> None:
    nuclei = InstanceSegmenter.from_preset("nuclei")
    result = nuclei.predict_instances(demo_image()[200:456, 150:406])
    assert 50 < len(result) < 200
    assert np.median(result.scores) > 0.7
    _, validation = label_folder(data_root / "dsb2018" / "train").split(1 / 7, seed=0)
    true, found = [], []
    for image, labels, _ in validation:
        if image.shape == (256, 256):
            true.append(labels)
            found.append(nuclei.predict_instances(image).labels)
    assert len(true) >= 20
    assert average_precision(true, found, thresholds=(0.5,))[0] >= 0.7


def test_digits_on_the_scenes_of_the_authors_and_unseen_ones(golden_root, data_root) -> None:
    model = InstanceSegmenter.from_preset("digits")
    assert model.embed(np.zeros((1, 64, 64, 3), "float32"))[0].shape == (1, 64, 64, 3)
    assert len(model.predict_instances(np.zeros((64, 64, 3), "uint8"))) == 0
    with np.load(golden_root / "mean_shift_digits_a.npz", allow_pickle=False) as file:
        images, truths = file["image"], file["instances"]
    found = [model.predict_instances(image).labels for image in images]
    # The background is a segment like the others.
    first, *others = (matching(a.astype(int) + 1, b + 1) for a, b in zip(truths, found))
    for one in others:
        first = first + one
    assert first.panoptic_quality >= 0.93
    images, truths = next(
        iter(
            digits(
                data_root / "mnist_10k.npz",
                "test",
                num_scenes=30,
                batch_size=30,
                same_class_share=0,
            )
        )
    )
    counted = [model.predict_instances(image).labels.max() for image in images.numpy()]
    there = [len(np.unique(truth[truth > 0])) for truth in truths.numpy()]
    assert np.mean(np.array(counted) != there) < 0.15


@pytest.mark.slow
def test_unseen_digits_have_their_classes(data_root) -> None:
    model = InstanceSegmenter.from_preset("digits_instances")
    assert len(model.predict_instances(np.zeros((64, 64, 3), "uint8"))) == 0
    dataset = digits(
        data_root / "mnist_10k.npz",
        "test",
        num_scenes=30,
        batch_size=1,
        classes=True,
        min_digits=1,
        same_class_share=0.0,
    )
    precision = MaskAveragePrecision()
    for images, labels in dataset:
        instances, classes = labels["instances"][0].numpy(), labels["classes"][0].numpy()
        # Digits that others cover altogether leave a gap in the ids.
        dense = np.unique(np.append(0, instances), return_inverse=True)[1][1:]
        truth = GroundTruth(dense.reshape(instances.shape), classes=classes)
        precision.update_state(truth, model.predict_instances(images[0].numpy()))
    assert precision.result()["AP50"] >= 0.85


def test_a_cup_has_boundaries_and_so_have_photographs(data_root) -> None:
    model = BoundaryDetector.from_preset("boundaries")
    found = model.predict_boundaries(data.coffee()).probabilities
    # Each column through the saucer's lower rim, and the empty table at the lower right.
    assert np.median(found[300:395, 250:350].max(axis=0)) > 0.6
    assert np.median(found[340:395, 520:595]) < 0.1
    pairs = find_boundary_pairs(data_root / "bsds500", "val")[:2]  # It was trained on these.
    maps = [model.predict_boundaries(read_image(pair.image)).thinned for pair in pairs]
    truths = [[one.boundaries for one in read_boundary_pair(pair)[1]] for pair in pairs]
    figures = boundary_benchmark(maps, truths, thresholds=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert figures.ods > 0.7


@pytest.fixture(scope="module")
def objects() -> ObjectProposer:
    return ObjectProposer.from_preset("objects")


def test_the_cup_is_among_the_best_objects(objects) -> None:
    proposals = objects.predict_proposals(data.coffee(), max_proposals=10)
    # The middle of the cup is in one of them, and the corners of the table are not in it.
    with_cup = [mask for mask in proposals.masks if mask[170:200, 280:310].mean() > 0.9]
    assert any(not mask[:40, :40].any() and not mask[-40:, -40:].any() for mask in with_cup)


@pytest.mark.slow
def test_objects_in_photographs_of_single_ones(objects, data_root) -> None:
    _, test = label_folder(data_root / "dali_coco" / "all", ignore_label=255).split(0.2)
    recall = AverageRecall((10,), exclude_void=True)
    for image, labels, _ in test:
        proposals = objects.predict_proposals(image, max_proposals=10)
        recall.update_state(GroundTruth(labels, ignore_label=VOID), proposals.masks)
    assert recall.result()["AR@10"] > 0.4
    assert recall.result()["AR50@10"] > 0.6


def test_strange_pictures(objects) -> None:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :128]
    disk = np.where((rows - 48) ** 2 + (columns - 64) ** 2 < 900, 220, 40).astype("uint8")
    nothing = {
        "a white page": np.full((96, 128, 3), 255, "uint8"),
        "darkness": np.zeros((96, 128, 3), "uint8"),
        "one gray": np.full((96, 128), 0.3, "float32"),
    }
    anything = {
        "noise": random.integers(0, 256, (96, 128, 3), "uint8"),
        "a disk of 16 bits": disk.astype("uint16") * 257,
        "stripes": np.repeat(np.where(columns // 8 % 2, 255, 0)[..., None], 4, -1).astype("uint8"),
        "a ramp": columns / 127.0,
        "a line": random.integers(0, 256, (8, 400, 3), "uint8"),
        "a cup, upside down": data.coffee()[::-4, ::4],
        "a page of text": data.page(),
    }
    for image in nothing.values():
        assert len(objects.predict_proposals(image)) == 0
    for image in anything.values():
        masks = objects.predict_proposals(image, 10).masks
        assert masks.shape[1:] == image.shape[:2]
    with pytest.raises(ValueError, match="8 pixels"):
        objects.predict_proposals(random.integers(0, 256, (1, 1000, 3), "uint8"))


@pytest.mark.slow
def test_objects_are_exported(objects, tmp_path: Path) -> None:
    image = data.coffee()[::3, ::3]
    expected = objects.predict_proposals(image).masks
    saved = load_served(objects.export(tmp_path / "objects"))
    np.testing.assert_array_equal(saved.predict_proposals(image).masks, expected)
    lite = load_served(objects.export(tmp_path / "objects.tflite", format="litert"))
    found = lite.predict_proposals(image, 10).masks
    assert np.mean(found == expected[:10]) > 0.999


def test_classes_of_photographs_that_it_has_not_seen(data_root) -> None:
    model = SemanticSegmenter.from_preset("voc_classes")
    for name, expected in (("astronaut", "person"), ("chelsea", "cat"), ("coffee", "diningtable")):
        areas = model.predict_classes(getattr(data, name)()[::2, ::2]).areas
        found = {model.class_name(label) for label, area in areas.items() if area > 5000}
        assert expected in found, name
    _, held_out = label_folder(data_root / "voc", instances="semantic/*", ignore_label=255).split(
        0.2
    )
    shown = held_out[:40]
    truths = (one.instances for one in shown)
    found = (model.predict_classes(one.image).classes for one in shown)
    assert np.mean(list(class_iou(truths, found, 21, VOID).values())) > 0.45


@pytest.mark.slow
def test_classes_of_photographs_are_exported(tmp_path: Path) -> None:
    model = SemanticSegmenter.from_preset("voc_classes")
    image = data.chelsea()[::2, ::2]
    expected = model.predict_classes(image).classes
    saved = load_served(model.export(tmp_path / "classes"))
    np.testing.assert_array_equal(saved.predict_classes(image).classes, expected)
    lite = load_served(model.export(tmp_path / "classes.tflite", format="litert"))
    assert np.mean(lite.predict_classes(image).classes == expected) > 0.999
    # A page, noise, and a line: nothing on the page, no error.
    assert not model.predict_classes(np.full((300, 400, 3), 255, "uint8")).classes.any()
    for size in ((300, 400), (9, 1000)):
        random = np.random.default_rng(0).integers(0, 256, (*size, 3), "uint8")
        assert model.predict_classes(random).classes.shape == size


def test_instances_with_classes_in_photographs_that_it_has_not_seen(data_root) -> None:
    model = InstanceSegmenter.from_preset("voc_instances")
    for name, expected in (("astronaut", "person"), ("chelsea", "cat")):
        found = model.predict_instances(getattr(data, name)()[::2, ::2])
        largest = found.classes[found.areas.argmax()]
        assert model.class_name(largest) == expected, name
    _, held_out = label_folder(data_root / "voc", classes="semantic/*", ignore_label=255).split(0.2)
    precision = MaskAveragePrecision("voc")
    for image, labels, classes in held_out[:60]:
        truth = GroundTruth(labels, classes, ignore_label=VOID)
        precision.update_state(truth, model.predict_instances(image))
    assert precision.result()["AP50"] > 0.1


@pytest.mark.slow
def test_instances_with_classes_are_exported(tmp_path: Path) -> None:
    model = InstanceSegmenter.from_preset("voc_instances")
    image = data.chelsea()[::2, ::2]
    expected = model.predict_instances(image)
    saved = load_served(model.export(tmp_path / "instances")).predict_instances(image)
    np.testing.assert_array_equal(saved.labels, expected.labels)
    assert saved.classes.tolist() == expected.classes.tolist()
    lite = load_served(model.export(tmp_path / "instances.tflite", format="litert"))
    found = lite.predict_instances(image)
    assert np.mean((found.labels > 0) == (expected.labels > 0)) > 0.99
    # A page, noise, and a line: nothing on the page, no error.
    assert len(model.predict_instances(np.full((300, 400, 3), 255, "uint8"))) == 0
    for size in ((300, 400), (9, 1000)):
        random = np.random.default_rng(0).integers(0, 256, (*size, 3), "uint8")
        assert model.predict_instances(random).labels.shape == size
