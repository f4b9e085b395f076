"""Everything of a training run on PASCAL VOC, read from a TOML file and checked."""

import inspect
import json
import tomllib
import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from keras_rpe.models import InstanceSegmenter, ObjectProposer, SemanticSegmenter
from keras_rpe.written_file import write_file

TASKS: dict[str, Any] = {
    "proposals": ObjectProposer,
    "instances": InstanceSegmenter,
    "semantic": SemanticSegmenter,
}
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
STATE_STEPS = 500  # A state is written after so many steps, and at the end.

_RANGES = {
    "crop_size": (8, 4096),
    "batch_size": (1, 4096),
    "held_out": (0.0, 0.5),
    "steps": (1, 10**7),
    "learning_rate": (1e-8, 10.0),
    "power": (0.0, 10.0),
    "momentum": (0.0, 0.999),
    "weight_decay": (0.0, 1.0),
    "seed": (0, 10**6),
}
_NONE = ("none", "")  # TOML has no word for None.
_NOT_IN_A_FILE = {"self", "decoder", "name", "trainable"}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    types.NoneType: '"none"',
}


@dataclass(frozen=True)
class Recipe:
    """The keys of a recipe file.

    Attributes:
        task: "proposals", "instances" or "semantic".
        crop_size: Side of the training crops, in pixels.
        batch_size: Crops a step, of all GPUs together.
        zoom: Each crop is enlarged by a random factor from this range.
        held_out: Share of VOC's training images that are not trained on. The ranking of the
            proposals is calibrated on them, or the thresholds of the instances chosen.
        steps: Updates.
        learning_rate: That of the first step; it falls to 0 as (1 - step / steps) ** power.
        power: That power.
        momentum: Of stochastic gradient descent.
        weight_decay: Factor of the weights in the gradient.
        precision: Keras' dtype policy.
        seed: Of the weights, of the crops and of the images that are held out.
        model: Arguments of the model's constructor.
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
    """Read a recipe and check its keys and values.

    Args:
        path: The TOML file.
        overrides: Values by their keys, `backbone_weights` among them, in place of the file's.

    Returns:
        The recipe.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no TOML, or a key is missing, unknown, or has a value that it cannot
            have: one sentence that names the file and the key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of its words, or of its encoding
        raise ValueError(f"{path} is no TOML file: {error}.") from error
    overrides = dict(overrides or {})
    arguments = table.pop("model", {})
    if not isinstance(arguments, dict):
        raise ValueError(f"{path}: model needs to be a table. Received: {arguments!r}")
    if "backbone_weights" in overrides:
        arguments["backbone_weights"] = overrides.pop("backbone_weights")
    table |= overrides

    hints = {field.name: field.type for field in fields(Recipe) if field.name != "model"}
    _check_names(path, "", table, hints)
    missing = [name for name in hints if name not in table]
    if missing:
        raise ValueError(f"{path}: {missing[0]} is missing.")
    checked = {name: _checked(path, name, table[name], hint) for name, hint in hints.items()}
    _check_values(path, checked)

    hints = model_arguments(checked["task"])
    _check_names(path, "model.", arguments, hints)
    model = {k: _checked(path, f"model.{k}", value, hints[k]) for k, value in arguments.items()}
    return Recipe(**checked, model=model)


def model_arguments(task: str) -> dict[str, Any]:
    """The arguments of a task's model that a file can give, with their types."""
    constructor = TASKS[task].__init__
    hints = typing.get_type_hints(constructor)
    return {k: hints[k] for k in inspect.signature(constructor).parameters if k in hints} | {
        # A model as a backbone cannot be written into a file.
        "backbone": str
    }


def check_run(out: Path, recipe: Recipe) -> None:
    """Start the folder of a run, or check that it was started with the same recipe.

    Args:
        out: The folder, made if it is missing.
        recipe: What the run is to do.

    Raises:
        ValueError: If it was started with another one.
        OSError: If it cannot be written.
    """
    file, settings = out / "recipe.json", json.loads(json.dumps(asdict(recipe)))
    if any(out.glob("epoch-*")):  # Without a state, a run starts anew.
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        different = [key for key in settings if before.get(key) != settings[key]]
        if different:
            raise ValueError(
                f"{out} holds a training run with another {different[0]}: repeat its settings, or "
                "choose another folder with --out."
            )
    out.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(settings, indent=2) + "\n")


def _check_names(path: Path, prefix: str, table: dict[str, Any], hints: dict[str, Any]) -> None:
    unknown = [name for name in table if name not in hints or name in _NOT_IN_A_FILE]
    if unknown:
        known = ", ".join(name for name in hints if name not in _NOT_IN_A_FILE)
        raise ValueError(f"{path}: {prefix}{unknown[0]} is no key, which are {known}.")


def _checked(path: Path, name: str, value: Any, hint: Any) -> Any:
    kinds = _parts(hint)
    if types.NoneType in kinds and value in _NONE:
        return None
    for kind in kinds:
        if kind in _KINDS:
            # A whole number is a number, but true is none.
            if type(value) is kind or (kind is float and type(value) is int):
                return value
        elif isinstance(value, list) and all(type(one) in (int, float) for one in value):
            return tuple(value)
    accepted = " or ".join(_KINDS.get(kind, "a list of numbers") for kind in kinds)
    raise ValueError(f"{path}: {name} needs {accepted}. Received: {value!r}")


def _parts(hint: Any) -> Sequence[Any]:
    """The types that a hint such as `float | None` admits."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return typing.get_args(hint)
    return (hint,)


def _check_values(path: Path, values: dict[str, Any]) -> None:
    for name, accepted in (("task", tuple(TASKS)), ("precision", PRECISIONS)):
        if values[name] not in accepted:
            raise ValueError(
                f"{path}: {name} needs one of {', '.join(accepted)}. Received: {values[name]!r}"
            )
    for name, (low, high) in _RANGES.items():
        if not low <= values[name] <= high:
            raise ValueError(
                f"{path}: {name} needs a number from {low:g} to {high:g}. Received: {values[name]}"
            )
    zoom = values["zoom"]
    if len(zoom) != 2 or not 0.1 <= zoom[0] <= zoom[1] <= 10.0:
        raise ValueError(
            f"{path}: zoom needs two factors in order, from 0.1 to 10. Received: {list(zoom)}"
        )
    if values["steps"] % min(STATE_STEPS, values["steps"]):
        raise ValueError(
            f"{path}: steps needs a multiple of {STATE_STEPS}, or less than that. "
            f"Received: {values['steps']}"
        )
