import csv
import json

import numpy as np
import pytest
from command_line import assert_one_line_error, bad_image
from pycocotools import mask as coco_mask

from keras_rpe.data import VOID, read_image
from keras_rpe.metrics import AverageRecall, GroundTruth


def test_files_hold_the_best_proposals(run, labelled, tiny_proposer, proposal_preset, tmp_path):
    out = tmp_path / "out"
    bad = bad_image(labelled / "images", "text.png")
    command = ("propose", labelled / "images", "--preset", proposal_preset, "--out", out)
    outcome = run(*command, "--top", 3)
    assert_one_line_error(outcome, str(bad))
    assert {path.name for path in out.iterdir()} == {
        "proposals.csv",
        *(f"{name}_{kind}" for name in "abcd" for kind in ("masks.json", "overlay.png")),
    }
    with (out / "proposals.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for name in "abcd":
        image = read_image(labelled / "images" / f"{name}.png")
        found = tiny_proposer.predict_proposals(image, 3)
        content = json.loads((out / f"{name}_masks.json").read_text())
        masks = [coco_mask.decode(one["segmentation"]) for one in content["annotations"]]
        np.testing.assert_array_equal(np.array(masks, bool), found.masks)
        assert content["images"][0]["file_name"] == f"{name}.png"
        listed = [row for row in rows if row["image"] == f"{name}.png"]
        assert [int(row["area_px"]) for row in listed] == found.areas.tolist()
        assert [float(row["score"]) for row in listed] == pytest.approx(found.scores, rel=1e-4)
        assert read_image(out / f"{name}_overlay.png").shape == image.shape


def test_figures_are_the_average_recall(run, labelled, tiny_proposer, proposal_preset, tmp_path):
    command = ("evaluate", labelled, "--preset", proposal_preset, "--json", tmp_path / "f.json")
    for option in ((), ("--ignore-label", 300)):
        outcome = run(*command, *option)
        assert outcome.code == 0, outcome.err
        recall = AverageRecall((1, 10, 60), exclude_void=True)
        for name in "abcd":
            labels = np.zeros((32, 40), "int32")
            labels[4:14, 5:15] = 1
            labels[16:28, 20:34] = VOID if option else 300
            found = tiny_proposer.predict_proposals(
                read_image(labelled / "images" / f"{name}.png"), 60
            )
            recall.update_state(GroundTruth(labels, ignore_label=VOID), found.masks)
        figures = json.loads((tmp_path / "f.json").read_text())
        assert (figures.pop("images"), figures.pop("objects")) == (4, 4 if option else 8)
        assert figures == pytest.approx(recall.result())
    assert_one_line_error(run(*command, "--threshold", 0.5), "--threshold", "proposals")
