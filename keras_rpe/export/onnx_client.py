"""An ONNX file that runs in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.export.served_model import ServedModel, refusal
from keras_rpe.optional_import import optional_import

_FATAL = 4


class OnnxClient(ServedModel):
    """An ONNX file that ONNX Runtime runs on the CPU.

    Args:
        file: The file.
        num_threads: Threads of an operator.

    Raises:
        ValueError: If it is damaged, or not of this package.
        ImportError: If the extra `onnx` is not installed.
    """

    def __init__(self, file: Path, num_threads: int) -> None:
        super().__init__(str(file), takes_floats=False)
        runtime = optional_import("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        # It warns of shapes that it does not know beforehand; errors are raised as well.
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = num_threads
        # As bytes: a file may name others, which are not read then.
        content = file.read_bytes()
        try:
            self._session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # a class of the runtime for each of its codes
            raise ValueError(
                "`path_or_url` must be an ONNX file that is whole. "
                f"Received: path_or_url={str(file)!r}, {refusal(error)}"
            ) from error
        inputs = {value.name: value.type for value in self._session.get_inputs()}
        if inputs != {"image": "tensor(uint8)"}:
            raise ValueError(
                "`path_or_url` must be an ONNX file that takes `image`, tensor(uint8). "
                f"Received: path_or_url={str(file)!r}, which takes {inputs}"
            )
        self._names = [value.name for value in self._session.get_outputs()]

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Run the graph."""
        try:
            values = self._session.run(self._names, {"image": images})
        except Exception as error:  # a class of the runtime for each of its codes
            raise ValueError(f"{self.source} failed: {refusal(error)}") from error
        return dict(zip(self._names, values))
