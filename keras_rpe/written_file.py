"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path


def write_file(path: Path, content: bytes | str) -> Path:
    """Write a file under a temporary name, then rename it.

    Args:
        path: The file.
        content: Its content; text is written in UTF-8.

    Returns:
        The file.

    Raises:
        OSError: If it cannot be written; nothing is left behind.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from keras_rpe.written_file import write_file
        >>> write_file(Path(tempfile.mkdtemp()) / "a", b"content").read_bytes()
        b'content'
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path
