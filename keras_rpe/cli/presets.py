"""`keras-rpe presets`: the models that come with the package."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import Any

import typer

from keras_rpe.cli.report import print_table
from keras_rpe.cli.tensorflow_import import import_tensorflow


def presets() -> None:
    """List the bundled presets."""
    import_tensorflow()
    from keras_rpe.models import preset_names
    from keras_rpe.models.presets import preset_folder, read_metadata

    rows = []
    for name in preset_names():
        folder = preset_folder(name)
        rows.append(_row(name, folder, read_metadata(folder)))
    if not rows:
        typer.echo("no presets are bundled")
        return
    columns = ["preset", "task", "backbone", "parameters", "size", "trained on", "figures"]
    print_table("Presets", columns, rows, width=120)


def _row(name: str, folder: Path, metadata: dict[str, Any]) -> list[str]:
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    parameters = metadata.get("parameter_count")
    return [
        name,
        str(metadata.get("task") or _config(folder, "class_name")),
        str(metadata.get("backbone") or _config(folder, "backbone")),
        f"{parameters:,}" if isinstance(parameters, int) else "",
        f"{size / 1e6:.1f} MB",
        str(metadata.get("trained_on") or ""),
        _figures(metadata),
    ]


def _config(folder: Path, key: str) -> str:
    """A value of the model's configuration, or its name where it is an object of its own."""
    import json

    from keras_rpe.models.presets import CONFIG

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    value = config.get(key) or config.get("config", {}).get(key, "")
    if isinstance(value, dict):
        value = value.get("config", {}).get("name", value.get("class_name", ""))
    return str(value)


def _figures(metadata: dict[str, Any]) -> str:
    """What `figures` of the metadata holds: a text, or numbers by name."""
    figures = metadata.get("figures") or ""
    if not isinstance(figures, dict):
        return str(figures)
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, numbers.Real) else f"{key} {value}"
        for key, value in figures.items()
    )
