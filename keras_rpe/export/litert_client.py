"""A LiteRT file that runs in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.export.served_model import ServedModel, refusal
from keras_rpe.optional_import import optional_import


class LitertClient(ServedModel):
    """A LiteRT file that its interpreter runs, one image at a time.

    Args:
        file: The file.
        num_threads: Threads of the interpreter.

    Raises:
        ValueError: If it is damaged, or not of this package.
        ImportError: If the extra `litert` is not installed.
    """

    def __init__(self, file: Path, num_threads: int) -> None:
        super().__init__(str(file), takes_floats=False)
        interpreter = optional_import("ai_edge_litert.interpreter", "litert")
        content = file.read_bytes()
        try:
            self._interpreter = interpreter.Interpreter(
                model_content=content, num_threads=num_threads
            )
            self._run = self._interpreter.get_signature_runner("serving_default")
            inputs = self._run.get_input_details()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                "`path_or_url` must be a LiteRT file that is whole, with a signature "
                f"`serving_default`. Received: path_or_url={str(file)!r}, {refusal(error)}"
            ) from error
        if set(inputs) != {"image"} or inputs["image"]["dtype"] != np.uint8:
            raise ValueError(
                "`path_or_url` must be a LiteRT file that takes `image`, uint8. "
                f"Received: path_or_url={str(file)!r}, which takes {sorted(inputs)}"
            )
        # It resizes its tensors to the image.
        self._lock = threading.Lock()

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Run the signature."""
        try:
            with self._lock:
                return self._run(image=images)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{self.source} failed: {refusal(error)}") from error
