"""The error of presets that cannot be had or are refused."""


class PresetError(ValueError):
    """A preset or model file is unknown, out of reach, damaged, refused as unsafe, or unfitting."""
