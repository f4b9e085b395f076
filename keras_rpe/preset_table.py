"""The presets that come with the package, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def list_presets() -> None:
    """Print a table of the bundled presets: task, network, size, data, licence, figures.

    Example:
        >>> import keras_rpe
        >>> keras_rpe.list_presets()
        Presets...
        ...nuclei...
    """
    # Both import what the top of the package must not wait for.
    from keras_rpe.cli.report import print_table
    from keras_rpe.models.presets import preset_folder, preset_names, read_metadata

    rows = []
    for name in preset_names():
        folder = preset_folder(name)
        rows.append(_row(name, folder, read_metadata(folder)))
    if not rows:
        print("no presets are bundled")
        return
    columns = ["preset", "task", "backbone", "parameters", "size", "trained on", "licence"]
    print_table("Presets", [*columns, "figures"], rows, width=132)


def _row(name: str, folder: Path, metadata: dict[str, Any]) -> list[str]:
    from keras_rpe.models.presets.card import figure_text

    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    parameters = metadata.get("parameter_count")
    figures = metadata.get("figures") or ""
    if isinstance(figures, dict):
        figures = ", ".join(f"{key} {figure_text(value)}" for key, value in figures.items())
    return [
        name,
        str(metadata.get("task") or _config(folder, "class_name")),
        str(metadata.get("backbone") or _config(folder, "backbone")),
        f"{parameters:,}" if isinstance(parameters, int) else "",
        f"{size / 1e6:.1f} MB",
        str(metadata.get("trained_on") or ""),
        str(metadata.get("licence") or ""),
        str(figures),
    ]


def _config(folder: Path, key: str) -> str:
    """A value of the model's configuration, or its name where it is an object of its own."""
    from keras_rpe.models.presets import CONFIG
    from keras_rpe.models.presets.files import read_json

    config = read_json(folder / CONFIG)
    value = config.get(key) or config.get("config", {}).get(key, "")
    if isinstance(value, dict):
        value = value.get("config", {}).get("name", value.get("class_name", ""))
    return str(value)
