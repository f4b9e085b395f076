import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from keras_rpe.visualization import loss_per_loop, sphere_scatter, trajectory_picture
from keras_rpe.visualization.sphere import agg_figure, figure_pixels


@pytest.mark.parametrize(("width", "height"), [(1, 1), (29, 57), (115, 203), (641, 333)])
def test_a_figure_has_just_the_given_pixels(width, height):
    picture = figure_pixels(agg_figure(width, height))
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.min() == 255


def test_pyplot_and_its_settings_are_left_alone():
    before = dict(matplotlib.rcParams), pyplot.get_fignums()
    sphere_scatter(np.eye(3), side=100)
    trajectory_picture(np.stack([np.eye(3), np.eye(3)]), side=150)
    loss_per_loop({"embedding_loss": [1.0]})
    assert (dict(matplotlib.rcParams), pyplot.get_fignums()) == before


@pytest.mark.parametrize(
    "draw",
    [
        lambda: sphere_scatter(np.eye(3)),
        lambda: trajectory_picture(np.stack([np.eye(3), np.eye(3)])),
        lambda: loss_per_loop({"embedding_loss": [1.0]}),
    ],
)
def test_without_matplotlib_the_error_has_the_command(monkeypatch, draw):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "keras-rpe\[plot\]"'):
        draw()


def test_what_needs_no_matplotlib_works_without_it():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np; from keras_rpe.visualization import embedding_colors\n"
        "print(embedding_colors(np.ones((1, 1, 3)))[0].tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[[[255, 255, 255]]]"
