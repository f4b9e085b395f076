"""The command `presets`."""

from __future__ import annotations

import typer

from keras_rpe_cli.report import import_keras_rpe, print_table


def presets() -> None:
    """List the bundled presets."""
    import_keras_rpe()
    from keras_rpe import list_presets

    found = list_presets()
    if not found:
        typer.echo("no presets are bundled")
        return
    models = [[row.name, row.task, row.backbone, row.figure] for row in found]
    print_table("Presets", ["preset", "task", "backbone", "figure"], models)
    typer.echo()
    weights = [
        [row.name, f"{row.parameters:,}", f"{row.megabytes:.1f} MB", row.trained_on, row.licence]
        for row in found
    ]
    print_table("Weights", ["preset", "parameters", "size", "trained on", "license"], weights)
