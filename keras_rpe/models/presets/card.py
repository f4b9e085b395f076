"""The model card of a preset."""

from __future__ import annotations

import json
import numbers
from pathlib import Path
from typing import Any

_MARK = "<!-- Written from metadata.json; edit it and this line to keep your own. -->"
_MISSING = "not stated"


def model_card(
    name: str, metadata: dict[str, Any], config: dict[str, Any], path: str | None = None
) -> str:
    """Write what is known of a preset as Markdown: data, commands, figures, licence, limits.

    Nothing is made up: what the metadata do not say is called "not stated".

    Args:
        name: Name of the preset.
        metadata: Content of its `metadata.json`. Known entries are `task`, `backbone`,
            `trained_on`, `data_licence`, `licence`, `seed`, `epochs`, `steps`, `minutes`,
            `initialised_from`, and `versions`, `commands`, `figures` by name; `figures_on` says of
            which images they are, and `limits` is a list of sentences.
        config: Content of its `config.json`.
        path: What `from_preset` takes to load it; `None`: the name.

    Returns:
        The card.

    Example:
        >>> from keras_rpe.models.presets import model_card
        >>> card = model_card("mine", {"figures": {"AP at IoU 0.5": 0.8}}, {"class_name": "Task"})
        >>> "| AP at IoU 0.5 | 0.8 |" in card, "| License of the weights | not stated |" in card
        (True, True)
    """
    class_name = str(config.get("class_name", "Task"))
    parts = [f"# {name}", _MARK, _usage(class_name, path or name), _facts(class_name, metadata)]
    parts += ["## Commands", _commands(metadata.get("commands"))]
    parts += ["## Figures", _figures(metadata)]
    limits = metadata.get("limits") or [f"Its limits are {_MISSING}."]
    parts += ["## Limits", "\n".join(f"- {limit}" for limit in limits)]
    return "\n\n".join(parts) + "\n"


def is_generated(card: Path) -> bool:
    """Whether a card was written by `model_card`, and not by a person."""
    return _MARK in card.read_text(encoding="utf-8", errors="replace")


def _usage(class_name: str, path: str) -> str:
    load = f"keras_rpe.models.{class_name}.from_preset({json.dumps(path, ensure_ascii=False)})"
    return f"```python\nimport keras_rpe\n\nmodel = {load}\n```"


def _facts(class_name: str, metadata: dict[str, Any]) -> str:
    count = metadata.get("parameter_count")
    network = f"`{class_name}`, backbone `{metadata.get('backbone') or _MISSING}`"
    if isinstance(count, int):
        network += f", {count:,} parameters"
    versions = dict(metadata.get("versions") or {})
    versions.setdefault("keras", metadata.get("keras_version"))
    versions.setdefault("keras_rpe", metadata.get("keras_rpe_version"))
    training = [
        f"{key}: {metadata[key]}" for key in ("epochs", "steps", "minutes") if metadata.get(key)
    ]
    rows = {
        "Task": metadata.get("task"),
        "Network": network,
        "Initialized from": metadata.get("initialised_from"),
        "Trained on": metadata.get("trained_on"),
        "License of the data": metadata.get("data_licence"),
        "Training": ", ".join(training),
        "Seed": metadata.get("seed"),
        "Versions": ", ".join(f"{key} {value}" for key, value in versions.items() if value),
        "License of the weights": metadata.get("licence"),
    }
    lines = [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _commands(commands: Any) -> str:
    if not isinstance(commands, dict) or not commands:
        return f"Those that trained and evaluated it are {_MISSING}."
    return "\n\n".join(f"To {verb}:\n\n```\n{line}\n```" for verb, line in commands.items())


def _figures(metadata: dict[str, Any]) -> str:
    figures = metadata.get("figures")
    if not figures:
        return f"How well it does is {_MISSING}."
    if not isinstance(figures, dict):
        return str(figures)
    lines = [f"| {key} | {figure_text(value)} |" for key, value in figures.items()]
    table = "\n".join(["| figure | value |", "| --- | --- |", *lines])
    where = metadata.get("figures_on")
    return f"Measured on {where}.\n\n{table}" if where else table


def figure_text(value: Any) -> str:
    """A figure with three digits."""
    return f"{value:.3g}" if isinstance(value, numbers.Real) else str(value)


def _cell(value: Any) -> str:
    return _MISSING if value in (None, "") else " ".join(str(value).replace("|", "\\|").split())
