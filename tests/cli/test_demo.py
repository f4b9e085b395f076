import socket

import numpy as np
from cli_outcome import assert_one_line_error

from keras_rpe.data import read_image, read_labels
from keras_rpe_cli.demo import demo_image


def test_writes_pictures_and_labels(run, tiny_preset, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the demo must not need the internet")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    out = tmp_path / "demo"
    outcome = run("demo", "--preset", tiny_preset, "--out", out)
    assert outcome.code == 0
    assert outcome.err == ""
    stain = demo_image()
    labels = read_labels(out / "labels.png")
    count = int(labels.max())
    assert outcome.out.splitlines()[0].split() == [str(count), "instance" + "s" * (count != 1)]
    assert labels.shape == stain.shape
    image = read_image(out / "image.png")
    np.testing.assert_array_equal(image[..., 0], stain)
    assert read_image(out / "overlay.png").shape == (*stain.shape, 3)
    assert read_image(out / "loops.png").shape[1] > 3 * stain.shape[1]
    assert sorted(outcome.out.split()[2:]) == sorted(str(path) for path in out.iterdir())


def test_unknown_preset_leaves_nothing(run, tmp_path):
    outcome = run("demo", "--preset", "nothing", "--out", tmp_path / "demo")
    assert_one_line_error(outcome, "'nothing'")
    assert not (tmp_path / "demo").exists()
