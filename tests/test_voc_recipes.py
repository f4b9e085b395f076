"""The recipes of PASCAL VOC: their files, and with `pytest -m slow` a dry run of each."""

import csv
import importlib
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from voc_layout import write_sbd, write_voc

from keras_rpe.data import VOID, pascal_voc

FOLDER = Path(__file__).parents[1] / "examples" / "voc"
FILES = sorted(FOLDER.glob("*.toml"))
STEPS = 4


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("voc_recipe")


@pytest.fixture
def script(recipes: ModuleType) -> ModuleType:
    return importlib.import_module("train")


def test_files_are_recipes(recipes: ModuleType) -> None:
    assert {path.stem for path in FILES} == {
        f"{task}_resnet{depth}" for task in recipes.TASKS for depth in (50, 101)
    }
    for path in FILES:
        recipe = recipes.read_recipe(path)
        assert f"{recipe.task}_{recipe.model['backbone']}" == f"{path.stem}_os8"
        assert recipe.model["ignore_label"] == VOID


def test_options_override_the_file(recipes: ModuleType) -> None:
    options = {"steps": 20, "crop_size": 64, "batch_size": 2, "backbone_weights": ""}
    recipe = recipes.read_recipe(FILES[0], options)
    assert (recipe.steps, recipe.crop_size, recipe.batch_size) == (20, 64, 2)
    assert recipe.model["backbone_weights"] is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 40000", "stpes = 40000", "stpes is no key, which are task, crop_size,"),
        ("steps = 40000", "", "steps is missing"),
        ("steps = 40000", 'steps = "many"', "steps='many'"),
        ("steps = 40000", "steps = 750", "steps=750"),
        ("steps = 40000", "steps = 40000 40000", "line "),
        ("learning_rate = 0.005", "learning_rate = nan", "learning_rate=nan"),
        ("crop_size = 320", "crop_size = 0", "crop_size=0"),
        ("zoom = [0.7, 1.5]", "zoom = [1.5, 0.7]", "zoom=(1.5, 0.7)"),
        ("zoom = [0.7, 1.5]", 'zoom = ["a", "b"]', "zoom='a'"),
        ('task = "instances"', 'task = "boxes"', "task='boxes'"),
        ('task = "instances"', 'task = "semantic"', "inference_window_size is no key"),
        ("margin = 0.5", "trainable = false", "trainable is no key"),
    ],
)
def test_errors_are_one_sentence(
    recipes: ModuleType, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = (FOLDER / "instances_resnet50.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        recipes.read_recipe(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_run_keeps_its_recipe(recipes: ModuleType, tmp_path: Path) -> None:
    recipe = recipes.read_recipe(FILES[0])
    recipes.check_run(tmp_path / "run", recipe)
    # Before its first state it may be started with another one.
    other = replace(recipe, seed=1)
    recipes.check_run(tmp_path / "run", other)
    (tmp_path / "run" / "epoch-0001").mkdir()
    recipes.check_run(tmp_path / "run", other)
    with pytest.raises(ValueError, match="holds a training run with another seed"):
        recipes.check_run(tmp_path / "run", recipe)


def test_optimizer_decays_as_the_gradient_does(script: ModuleType, recipes: ModuleType) -> None:
    recipe = replace(recipes.read_recipe(FILES[0]), learning_rate=0.1, weight_decay=2e-3)
    assert float(script.new_optimizer(recipe).learning_rate) == pytest.approx(0.1)
    weight = keras.Variable(1.0)
    optimizer = script.new_optimizer(replace(recipe, power=0.0))
    expected, velocity = 1.0, 0.0
    for _ in range(150):
        optimizer.apply([np.float32(0.0)], [weight])
        velocity = 0.9 * velocity - 0.1 * 2e-3 * expected
        expected += velocity
    assert expected < 0.8
    assert float(weight) == pytest.approx(expected, rel=0.03)
    rate = script.new_optimizer(recipe)._learning_rate
    assert float(rate(recipe.steps)) == 0.0
    assert float(rate(recipe.steps // 2)) == pytest.approx(0.1 * 0.5**0.9, rel=1e-4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    size = {"height": 80, "width": 104}
    write_voc(tmp_path, train=7, val=3, **size)
    of_sbd = [f"2009_{number:06d}" for number in range(4)]
    # One that VOC labels as well, and one of VOC's val.
    write_sbd(
        tmp_path / "benchmark_RELEASE" / "dataset", [*of_sbd, "2008_000002", "2008_000009"], **size
    )
    return tmp_path


def test_held_out_images_are_of_voc(script: ModuleType, recipes: ModuleType, data: Path) -> None:
    recipe = replace(recipes.read_recipe(FILES[0]), held_out=0.3)
    places = data / "VOCdevkit", data / "benchmark_RELEASE"
    training, held_out = script.split(*places, recipe)
    assert len(held_out) == 3  # of 7
    assert all(name.startswith("2008") for name in held_out.names)
    every = pascal_voc(places[0], "train", places[1]).names
    assert sorted(held_out.names + training.names) == sorted(every)
    with pytest.raises(ValueError, match="batch_size needs at most 8, the number of training"):
        script.split(*places, replace(recipe, batch_size=9))
    assert script.split(*places, replace(recipe, held_out=0.0))[1] is None


def _command(recipe: Path, data: Path, *arguments: object) -> list[str]:
    voc = ["--voc", data / "VOCdevkit", "--sbd", data / "benchmark_RELEASE"]
    out = ["--out", data / "run"]
    return [sys.executable, str(FOLDER / "train.py"), *map(str, [recipe, *voc, *out, *arguments])]


@pytest.mark.slow
def test_the_command_says_what_is_wrong(data: Path) -> None:
    text = FILES[0].read_text().replace("_os8", "_os9")
    (data / "mine.toml").write_text(text)
    command = _command(data / "mine.toml", data, "--backbone-weights", "", "--batch-size", 2)
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"train.py: {data / 'mine.toml'}: `backbone` must be a keras.Model or")


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dry_run(recipes: ModuleType, path: Path, data: Path) -> None:
    options = ["--steps", STEPS, "--crop-size", 48, "--batch-size", 1, "--backbone-weights", ""]
    command = _command(path, data, *options, "--val-images", 1)
    out = data / "run"
    printed = []
    for _ in range(2):  # The second start trains no more.
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        printed.append(result.stdout.splitlines()[-1])
        rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
        assert [row["epoch"] for row in rows] == ["0"]
        assert json.loads((out / "epoch-0001" / "state.json").read_text())["epoch"] == 1
    losses = [float(value) for name, value in rows[0].items() if not name.startswith("val_")]
    assert all(map(math.isfinite, losses))
    assert printed[0] == printed[1]

    notes = json.loads((out / "preset" / "metadata.json").read_text())
    assert notes["steps"] == STEPS
    assert notes["figures_on"] == "1 images of PASCAL VOC 2012 val"
    assert str(notes["figures"]) == printed[0]
    assert all(0.0 <= figure <= 1.0 for figure in notes["figures"].values())
    model = recipes.TASKS[notes["task"]].from_preset(out / "preset")
    assert model.backbone.name == notes["backbone"]


@pytest.mark.slow
def test_killed_training_continues(
    script: ModuleType,
    recipes: ModuleType,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script, "STATE_STEPS", 2)
    small = {"backbone": "unet_small", "embedding_dim": 4, "ignore_label": VOID, "num_classes": 20}
    recipe = replace(
        recipes.read_recipe(FOLDER / "semantic_resnet50.toml"),
        steps=6,
        crop_size=32,
        batch_size=2,
        model=small,
    )
    out = data / "run"
    training, _ = script.split(data / "VOCdevkit", data / "benchmark_RELEASE", recipe)

    def kill(epoch: int, logs: dict[str, float]) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    recipes.check_run(out, recipe)
    model, epoch = script.make_model(recipe, out, None)
    assert epoch == 0
    with monkeypatch.context() as patch:
        patch.setattr(script, "check_loss", kill)
        with pytest.raises(KeyboardInterrupt):
            script.train(model, epoch, recipe, training, out)
    model, epoch = script.make_model(recipe, out, None)
    assert epoch == 1
    assert int(model.optimizer.iterations) == 2
    script.train(model, epoch, recipe, training, out)
    assert int(model.optimizer.iterations) == 6
    assert script.make_model(recipe, out, None)[1] == 3
