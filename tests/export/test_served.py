"""What an export gives is checked, since a server may be anyone's."""

import numpy as np
import pytest

from keras_rpe.export import ServedModel

HEIGHT, WIDTH = 9, 8
MAPS = np.zeros((1, HEIGHT, WIDTH, 2), "int32")
MAPS[0, 1:4, 1:5, 1] = 3
LABELS = MAPS[..., 1] // 3
BOXES = np.array([[[1, 1, 4, 5], [0, 0, 0, 0]]], "int32")
CRESTS = np.where(MAPS[..., 1] > 0, 0.25, 0).astype("float32")
ANSWERS: dict[str, dict[str, np.ndarray]] = {
    "instances": {
        "labels": LABELS,
        "scores": np.array([[0.9, 0.0]], "float32"),
        "boxes": BOXES,
        "classes": np.array([[1, 0]], "int32"),
        "num_instances": np.array([1], "int32"),
    },
    "proposals": {
        "label_maps": MAPS,
        "scores": np.array([[0.9, 0.0]], "float32"),
        "scales": np.array([[1, 0]], "int32"),
        "ids": np.array([[3, 0]], "int32"),
        "boxes": BOXES,
        "num_proposals": np.array([1], "int32"),
    },
    "boundaries": {"boundaries": CRESTS + 0.5, "thin": CRESTS},
    "classes": {"classes": MAPS[..., 1]},
}


class Answering(ServedModel):
    """An export that gives what it is told."""

    def __init__(self, tables: dict) -> None:
        super().__init__("it", takes_floats=False)
        self.tables = tables

    def predict_tables(self, images, diameter=None):
        assert diameter is None
        assert images.dtype == np.uint8
        assert images.shape == (1, HEIGHT, WIDTH, 3)
        return self.tables


def predict(task: str, tables: dict, image: object = None, **options):
    image = np.zeros((HEIGHT, WIDTH), "uint8") if image is None else image
    return getattr(Answering(tables), f"predict_{task}")(image, **options)


@pytest.mark.parametrize("as_lists", [False, True])
def test_results(as_lists) -> None:
    def answer(task: str) -> dict:
        tables = ANSWERS[task]
        return {k: v.tolist() for k, v in tables.items()} if as_lists else tables

    instances = predict("instances", answer("instances"))
    np.testing.assert_array_equal(instances.labels, LABELS[0])
    assert (len(instances), instances.areas.tolist()) == (1, [12])
    assert instances.boxes.tolist() == [[1, 1, 4, 5]]
    proposals = predict("proposals", answer("proposals"), max_proposals=5)
    np.testing.assert_array_equal(proposals.masks, LABELS.astype(bool))
    boundaries = predict("boundaries", answer("boundaries"))
    np.testing.assert_array_equal(boundaries.probabilities, CRESTS[0] + 0.5)
    np.testing.assert_array_equal(boundaries.thinned, CRESTS[0])
    classes = predict("classes", answer("classes"))
    assert classes.areas == {0: 60, 3: 12}
    dtypes = [instances.labels, instances.scores, boundaries.thinned, classes.classes]
    assert [array.dtype.name for array in dtypes] == ["int32", "float32", "float32", "int32"]


@pytest.mark.parametrize(
    ("task", "name", "change"),
    [
        ("instances", "labels", lambda x: x[:, 1:]),
        ("instances", "labels", lambda x: x - 1),
        ("instances", "labels", lambda x: x + 1),
        ("instances", "labels", lambda x: x + 0.5),
        ("instances", "labels", lambda x: x.astype(str)),
        ("instances", "labels", lambda x: x.astype("int64") + 2**40),
        ("instances", "labels", lambda _: [[1], [2, 3]]),
        ("instances", "labels", lambda _: 10**40),
        ("instances", "scores", lambda x: x * np.nan),
        ("instances", "scores", lambda x: x[0]),
        ("instances", "scores", lambda _: 0.9),
        ("instances", "scores", lambda x: x.astype("float64") + 1e60),
        ("instances", "boxes", lambda x: x[..., :3]),
        ("instances", "classes", lambda x: x[:, 1:]),
        ("instances", "num_instances", lambda x: x - 9),
        ("instances", "num_instances", lambda x: x + 9),
        ("instances", "num_instances", lambda x: x[:0]),
        ("instances", "num_instances", lambda _: None),
        ("proposals", "label_maps", lambda x: x[..., 0]),
        ("proposals", "label_maps", lambda _: np.zeros((1, HEIGHT, WIDTH, 33), int)),
        ("proposals", "scales", lambda x: x + 1),
        ("proposals", "scales", lambda x: x - 2),
        ("proposals", "ids", lambda x: x * 0),
        ("proposals", "num_proposals", lambda x: x + 2),
        ("boundaries", "boundaries", lambda x: x + 0.5),
        ("boundaries", "boundaries", lambda x: x * np.nan),
        ("boundaries", "thin", lambda x: x - 0.5),
        ("boundaries", "thin", lambda _: [["x"]]),
        ("classes", "classes", lambda x: x[0]),
        ("classes", "classes", lambda x: x - 1),
    ],
)
def test_other_answers_are_refused(task, name, change) -> None:
    tables = ANSWERS[task]
    match = rf"^it must give the .* of one image of 9 x 8 pixels, .* Received: .*{name}"
    with pytest.raises(ValueError, match=match):
        predict(task, {**tables, name: change(tables[name])})
    with pytest.raises(ValueError, match=f"Received: no {name}$"):
        predict(task, {k: v for k, v in tables.items() if k != name})


def test_the_diameter_is_that_of_the_export_and_checked() -> None:
    tables = {**ANSWERS["instances"], "diameter": np.array([22.5], "float32")}
    image = np.zeros((HEIGHT, WIDTH), "uint8")
    assert Answering(tables).predict_instances(image).diameter == 22.5
    assert Answering(ANSWERS["instances"]).predict_instances(image).diameter is None
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match="Received: .*diameter"):
            Answering({**tables, "diameter": np.array([wrong], "float32")}).predict_instances(image)


def test_instances_beyond_the_tables_are_kept_and_told_to_the_caller() -> None:
    labels = np.zeros((1, HEIGHT, WIDTH), "int32")
    labels[0, 2:4, 1:6], labels[0, 5:7, 2:4] = 1, 2
    tables = {**ANSWERS["instances"], "labels": labels, "num_instances": np.array([2], "int32")}
    tables |= {name: tables[name][:, :1] for name in ("scores", "boxes", "classes")}
    with pytest.warns(UserWarning, match="2 instances, and the model tables for 1") as warnings:
        found = Answering(tables).predict_instances(np.zeros((HEIGHT, WIDTH), "uint8"))
    assert warnings[0].filename == __file__
    assert (len(found), found.areas.tolist()) == (2, [10, 4])
    assert found.boxes[1].tolist() == [5, 2, 7, 4]
    assert np.isnan(found.scores[1])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((7, 9, 3), "uint8"), "`image`"),
        (np.zeros((2, 9, 9, 3), "uint8"), "`image`"),
        (np.full((9, 9), np.nan), "`image`"),
        (np.full((9, 9), "x"), "`image`"),
        (np.zeros((HEIGHT, WIDTH), "uint16"), "`image` must be uint8 for it.*dtype=uint16"),
    ],
)
def test_images_are_checked(image, message) -> None:
    with pytest.raises(ValueError, match=message):
        predict("instances", ANSWERS["instances"], image)


def test_number_of_proposals_is_checked() -> None:
    with pytest.raises(ValueError, match="`max_proposals`"):
        predict("proposals", ANSWERS["proposals"], max_proposals=0)
