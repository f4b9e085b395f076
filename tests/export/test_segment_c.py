"""The C program of examples/serving, compiled and run: the labels of the Keras model."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

SERVING = Path(__file__).parents[2] / "examples" / "serving"


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed, which compiles segment.c")
    source = SERVING / "segment.c"
    # The command that its first comment states.
    (command,) = re.findall(r"(gcc .*?)\n\s+TF_CPP", source.read_text(), re.DOTALL)
    assert "-o segment" in command
    folder = tmp_path_factory.mktemp("c")
    shutil.copy(source, folder)
    subprocess.run(
        ["bash", "-c", f"{command} -Werror"],
        cwd=folder,
        env={"TF": tf.sysconfig.get_lib(), "PATH": "/usr/bin:/bin"},
        check=True,
        timeout=120,
    )
    return folder / "segment"


def segment(program: Path, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_c(program, saved_model, nuclei, photo, tmp_path) -> None:
    expected = nuclei.predict_instances(photo).labels
    assert expected.max() > 2
    Image.fromarray(photo).save(tmp_path / "image.ppm")
    ended = segment(program, saved_model, tmp_path / "image.ppm", tmp_path / "labels.pgm")
    assert ended.stdout == f"{expected.max()} instances, labels in {tmp_path / 'labels.pgm'}\n"
    content = (tmp_path / "labels.pgm").read_bytes()
    height, width = expected.shape
    header = f"P5\n{width} {height}\n65535\n".encode()
    assert content.startswith(header)
    labels = np.frombuffer(content, ">u2", offset=len(header)).reshape(height, width)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a binary PPM"),
        (b"P6 16 -1 255\n", "header of a P6 file is damaged"),
        (b"P6 16 16 65535\n" + bytes(1536), "the largest value must be 255, not 65535"),
        (b"P6 60000 60000 255\n" + bytes(100), "60000 x 60000 pixels were announced"),
        (b"P6 16 16 255\n" + bytes(767), "the file is too short"),
        (b"P6 4 4 255\n" + bytes(48), "`image` must be at least 8 pixels high and wide"),
        (None, "No such file"),
    ],
)
def test_c_refuses(program, saved_model, tmp_path, content, message) -> None:
    if content is not None:
        (tmp_path / "image.ppm").write_bytes(content)
    ended = segment(program, saved_model, tmp_path / "image.ppm", tmp_path / "labels.pgm")
    assert ended.returncode == 1
    assert not ended.stdout
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("segment: ")]
    assert message in line
    assert not list(tmp_path.glob("labels*"))


@pytest.mark.slow
def test_c_refuses_other_folders(program, photo, tmp_path) -> None:
    Image.fromarray(photo).save(tmp_path / "image.ppm")
    ended = segment(program, tmp_path, tmp_path / "image.ppm", tmp_path / "labels.pgm")
    assert ended.returncode == 1
    assert f"segment: {tmp_path}: " in ended.stderr
