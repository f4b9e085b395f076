"""`keras-rpe presets`: the models that come with the package."""

from __future__ import annotations

from keras_rpe.cli.report import import_tensorflow


def presets() -> None:
    """List the bundled presets."""
    import_tensorflow()
    from keras_rpe.preset_table import list_presets

    list_presets()
