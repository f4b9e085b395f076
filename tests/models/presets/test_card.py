import json

import pytest

from keras_rpe.models.presets import CARD, METADATA, model_card

METADATA_OF_A_RUN = {
    "task": "instance segmentation",
    "backbone": "unet_small",
    "trained_on": "40 images of a|b",
    "data_licence": "CC0",
    "licence": "Apache-2.0",
    "seed": 0,
    "epochs": 3,
    "parameter_count": 1_234_567,
    "versions": {"keras": "3.15.1", "tensorflow": "2.21.0"},
    "commands": {"train": "keras-rpe train A --out B", "evaluate": "keras-rpe evaluate A"},
    "figures": {"AP at IoU 0.5": 0.79586},
    "figures_on": "7 images held out",
    "limits": ["Fluorescence only."],
}


def test_everything_that_is_known_is_in_the_card() -> None:
    card = model_card("mine", METADATA_OF_A_RUN, {"class_name": "InstanceSegmenter"})
    for line in (
        'model = keras_rpe.models.InstanceSegmenter.from_preset("mine")',
        "| Network | `InstanceSegmenter`, backbone `unet_small`, 1,234,567 parameters |",
        r"| Trained on | 40 images of a\|b |",
        "| Training | epochs: 3 |",
        "| Seed | 0 |",
        "| Versions | keras 3.15.1, tensorflow 2.21.0 |",
        "keras-rpe evaluate A",
        "Measured on 7 images held out.",
        "| AP at IoU 0.5 | 0.796 |",
        "- Fluorescence only.",
    ):
        assert line in card.splitlines()


def test_what_is_unknown_is_not_made_up() -> None:
    assert model_card("mine", {}, {}).count("not stated") >= 8


@pytest.mark.parametrize("own", [True, False])
def test_a_generated_card_is_renewed_and_one_of_a_person_kept(model, tmp_path, own) -> None:
    model.save_to_preset(tmp_path, {"licence": "first"})
    card = tmp_path / CARD
    assert "| License of the weights | first |" in card.read_text()
    if own:
        card.write_text("my own")
    model.save_to_preset(tmp_path, {"licence": "second"})
    assert ("| License of the weights | second |" in card.read_text()) != own
    checksums = json.loads((tmp_path / METADATA).read_text())["sha256"]
    assert (CARD in checksums) != own
