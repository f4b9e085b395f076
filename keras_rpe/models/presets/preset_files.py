"""The files of a preset, and how the small ones are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from keras_rpe.models.presets.preset_error import PresetError

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
CARD = "README.md"
FILES = (CONFIG, METADATA, WEIGHTS, CARD)

MAX_JSON_BYTES = 8_000_000  # The largest configuration of a known network has half a megabyte.


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        PresetError: If it is missing, large, or not such a file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise PresetError(f"The preset file {path} cannot be read: {error.strerror}.") from error
    return parse_json(content, f"The preset file {path}")


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        content: The text.
        name: What an error calls it.

    Returns:
        The object.

    Raises:
        PresetError: If it is none, or large.
    """
    if len(content) > MAX_JSON_BYTES:
        raise PresetError(f"{name} must be smaller than {MAX_JSON_BYTES:,} bytes.")
    try:
        result = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{name} must be JSON. Received: {error}") from error
    if not isinstance(result, dict):
        raise PresetError(f"{name} must hold a JSON object. Received: a {type(result).__name__}")
    return result


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file as hexadecimal digits.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "empty"
        >>> _ = path.write_bytes(b"")
        >>> sha256(path)[:8]
        'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
