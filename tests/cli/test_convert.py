"""`keras-rpe convert`, from a file of each kind to a preset that loads."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from checkpoints.matconvnet_fixtures import digits_dagnn, write
from command_line import assert_one_line_error

from keras_rpe.layers import BatchStatisticsNormalization
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import load_backbone_weights, make_backbone
from keras_rpe.models.presets import METADATA


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("mat") / "digits.mat", digits_dagnn().tree(), "v5")


@pytest.fixture(scope="module")
def unet_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "unet.weights.h5"
    make_backbone("unet_small").save_weights(path)
    return path


def test_keras_weights(run, unet_file, tmp_path) -> None:
    outcome = run("convert", unet_file, "--to", tmp_path / "p", "--backbone", "unet_small")
    assert (outcome.code, outcome.err) == (0, "")
    assert " 0 left as they were" in outcome.out
    assert "matched    P1_conv0/kernel (5, 5, 3, 32) <- " in outcome.out
    model = InstanceSegmenter.from_preset(tmp_path / "p")
    expected = make_backbone("unet_small", unet_file).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(model.backbone.get_weights(), expected))
    metadata = json.loads((tmp_path / "p" / METADATA).read_text())
    assert metadata["initialised_from"] == "unet.weights.h5"


def test_matconvnet_with_batch_statistics(run, digits_file, tmp_path) -> None:
    options = ("--backbone", "digits", "--batch-statistics", "--embedding-dim", 8)
    outcome = run("convert", digits_file, "--to", tmp_path / "p", *options)
    assert (outcome.code, outcome.err) == (0, "")
    model = InstanceSegmenter.from_preset(tmp_path / "p")
    norms = [x for x in model.backbone.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert norms
    assert all(isinstance(x, BatchStatisticsNormalization) for x in norms)
    expected = make_backbone("digits")
    load_backbone_weights(expected, digits_file)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(model.backbone.get_weights(), expected.get_weights(), strict=True)
    )


def test_what_does_not_fit_or_exist_is_one_line(run, unet_file, digits_file, tmp_path) -> None:
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"no checkpoint")
    for checkpoint, backbone, part in (
        (unet_file, "nothing", "backbone"),
        (digits_file, "resnet50", ""),
        (damaged, "efficientnet_lite0", "damaged.pth"),
        (tmp_path / "missing.pth", "efficientnet_lite0", "missing.pth"),
    ):
        outcome = run("convert", checkpoint, "--to", tmp_path / "p", "--backbone", backbone)
        assert_one_line_error(outcome, part)
        assert not (tmp_path / "p").exists()


def test_a_part_of_the_weights_is_taken_on_request(run, unet_file, tmp_path) -> None:
    part = tmp_path / "part.weights.h5"
    part.write_bytes(unet_file.read_bytes())
    with h5py.File(part, "a") as file:
        del file["layers/conv2d"]
    command = ("convert", part, "--to", tmp_path / "p", "--backbone", "unet_small")
    outcome = run(*command)
    assert outcome.code == 1
    assert "unchanged  P1_conv0/kernel" in outcome.out
    assert "--allow-unmatched leaves them random" in outcome.err
    assert not (tmp_path / "p").exists()
    assert run(*command, "--allow-unmatched").code == 0
    InstanceSegmenter.from_preset(tmp_path / "p")
