"""Names that stand in a file: made from its bytes, and shown in messages."""

from __future__ import annotations

from keras_rpe.checkpoints.report import CheckpointError


def decoded(data: bytes) -> str:
    """Decode a name.

    Raises:
        CheckpointError: If it is not UTF-8.

    Example:
        >>> from keras_rpe.checkpoints.file_names import decoded
        >>> decoded(b"conv1.weight")
        'conv1.weight'
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CheckpointError("has a name that is not UTF-8") from None


def shortened(name: str) -> str:
    """Quote a name for a message: in ASCII, without line breaks, 80 characters at most.

    Example:
        >>> from keras_rpe.checkpoints.file_names import shortened
        >>> print(shortened("a" * 100 + chr(10)))
        'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'
    """
    return ascii(name if len(name) <= 80 else name[:77] + "...")
