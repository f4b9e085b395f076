import shlex
from pathlib import Path

from keras_rpe_cli.train import commands


def test_commands_survive_spaces_and_leave_out_what_was_not_given() -> None:
    settings = {"folder": "/x", "image_names": "y", "preset": "nuclei", "backbone": None, "seed": 1}
    lines = commands(Path("my images"), Path("out"), settings, 5)
    assert shlex.split(lines["train"])[2] == "my images"
    assert "--preset nuclei --seed 1" in lines["train"]
    assert "backbone" not in lines["train"]
    assert "'my images'" in lines["evaluate"]
