"""What an exported file says of itself: where it comes from and how it was made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from keras_rpe.version import __version__

RECORD_NAME = "keras_rpe.json"


@dataclass(frozen=True)
class ExportRecord:
    """Origin of an exported model, kept inside it.

    Attributes:
        format: "tf_saved_model", "litert" or "onnx".
        quantize: How the weights are kept: "float16", "dynamic", "int8" or `None` for float32.
        source: The preset or the file that the Keras model was loaded from, `None` if unknown.
        keras_rpe_version: Version of this package.

    Example:
        >>> from keras_rpe.export.export_record import ExportRecord
        >>> record = ExportRecord("onnx", None, "nuclei")
        >>> ExportRecord.from_json(record.to_json()) == record
        True
    """

    format: str
    quantize: str | None = None
    source: str | None = None
    keras_rpe_version: str = __version__

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> ExportRecord:
        """Read it from JSON.

        Raises:
            ValueError: If it is none.
        """
        content: Any = json.loads(text)
        names = {"format", "quantize", "source", "keras_rpe_version"}
        if not isinstance(content, dict) or not names <= set(content):
            raise ValueError(f"An export record must hold {sorted(names)}. Received: {content!r}")
        return cls(**{name: content[name] for name in names})
