"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path


def write_file(path: Path, content: bytes | str) -> Path:
    """Write a file under a temporary name, then rename it, so that it is whole or not there."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path
