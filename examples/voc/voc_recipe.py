"""Read and check the TOML file of a training run on PASCAL VOC."""

import inspect
import json
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.models import InstanceSegmenter, ObjectProposer, SemanticSegmenter
from keras_rpe.written_file import write_file

TASKS: dict[str, Any] = {
    "proposals": ObjectProposer,
    "instances": InstanceSegmenter,
    "semantic": SemanticSegmenter,
}
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
STATE_STEPS = 500  # A state is written after this many steps, and at the end.

_INTEGERS = {
    "crop_size": (8, 4096),
    "batch_size": (1, 4096),
    "steps": (1, 10**7),
    "seed": (0, 10**6),
}
_NUMBERS = {
    "held_out": "[0, 0.5]",
    "learning_rate": "[1e-8, 10]",
    "power": "[0, 10]",
    "momentum": "[0, 0.999]",
    "weight_decay": "[0, 1]",
}
_NOT_IN_A_FILE = {"self", "decoder", "name", "trainable"}


@dataclass(frozen=True)
class Recipe:
    """The keys of a recipe file.

    Attributes:
        task: "proposals", "instances" or "semantic".
        crop_size: The side of the training crops, in pixels.
        batch_size: The number of crops per step, on all GPUs together.
        zoom: Each crop is enlarged by a random factor from this range.
        held_out: The share of VOC's training images that are not used for training. The ranking
            of the proposals is calibrated on them, or the thresholds of the instances are chosen.
        steps: The number of updates.
        learning_rate: The rate of the first step; it falls to 0 as (1 - step / steps) ** power.
        power: The power in this formula.
        momentum: The momentum of stochastic gradient descent.
        weight_decay: The factor of the weights in the gradient.
        precision: The Keras dtype policy.
        seed: The seed of the weights, the crops and the choice of held-out images.
        model: The arguments of the model's constructor.
    """

    task: str
    crop_size: int
    batch_size: int
    zoom: tuple[float, float]
    held_out: float
    steps: int
    learning_rate: float
    power: float
    momentum: float
    weight_decay: float
    precision: str
    seed: int
    model: dict[str, Any]


def read_recipe(path: Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe, and check its keys and all values except the arguments of the model.

    Args:
        path: The TOML file.
        overrides: Values by key that replace those of the file, including `backbone_weights`.

    Returns:
        The recipe.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not TOML, or if a key is missing, unknown or has an invalid value;
            the message is one sentence that names the file and the key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        values = {"model": {}, **values, **(overrides or {})}
        if "backbone_weights" in values:
            weights = values.pop("backbone_weights")
            values["model"] = {**values["model"], "backbone_weights": weights}
        _check_keys(values, [field.name for field in fields(Recipe)])
        missing = [field.name for field in fields(Recipe) if field.name not in values]
        if missing:
            raise ValueError(f"{missing[0]} is missing.")
        check_choice("task", values["task"], TASKS)
        check_choice("precision", values["precision"], PRECISIONS)
        for name, bounds in _INTEGERS.items():
            check_integer(name, values[name], *bounds)
        for name, interval in _NUMBERS.items():
            check_number(name, values[name], interval)
        zoom = tuple(check_number("zoom", factor, "[0.1, 10]") for factor in values["zoom"])
        if len(zoom) != 2 or zoom[0] > zoom[1]:
            raise ValueError(f"`zoom` must be two factors in order. Received: zoom={zoom}")
        if values["steps"] % min(STATE_STEPS, values["steps"]):
            raise ValueError(
                f"`steps` must be a multiple of {STATE_STEPS}, or less than that. "
                f"Received: steps={values['steps']}"
            )
        known = inspect.signature(TASKS[values["task"]]).parameters
        _check_keys(values["model"], [name for name in known if name not in _NOT_IN_A_FILE])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    model = {key: _value(value) for key, value in values["model"].items()}
    return Recipe(**{**values, "zoom": zoom, "model": model})


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return None if value in ("none", "") else value  # TOML has no null value.


def _check_keys(values: dict[str, Any], known: list[str]) -> None:
    for name in values:
        if name not in known:
            raise ValueError(f"{name} is no key, which are {', '.join(known)}.")


def check_run(out: Path, recipe: Recipe) -> None:
    """Start the folder of a run, or check that it was started with the same recipe.

    Args:
        out: The folder, made if it is missing.
        recipe: The recipe of the run.

    Raises:
        ValueError: If it was started with another recipe.
        OSError: If it cannot be written.
    """
    file, settings = out / "recipe.json", json.loads(json.dumps(asdict(recipe)))
    if any(out.glob("epoch-*")):  # Without a state, a run starts from the beginning.
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        different = [key for key in settings if before.get(key) != settings[key]]
        if different:
            raise ValueError(
                f"{out} holds a training run with another {different[0]}: repeat its settings, or "
                "choose another folder with --out."
            )
    out.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(settings, indent=2) + "\n")
