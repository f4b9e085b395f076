"""A model on a server, by the REST protocol of TensorFlow Serving."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_rpe.export.served_model import ServedModel, refusal

# The server is there, and another try may succeed.
_BUSY = (502, 503, 504)


class RestClient(ServedModel):
    """A model that a server runs, asked over HTTP.

    Images go as PNG files if they are uint8, to the signature `image_bytes`, and as numbers to
    `float_image` if not.

    Args:
        url: Address of the model, `http://HOST:PORT/v1/models/NAME`, or of one of its versions,
            with `/versions/N` after it.
        timeout: Seconds that the server may take to accept the connection, and to start answering.
    """

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, takes_floats=True)
        self._timeout = timeout

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Ask the server."""
        import requests

        if images.dtype == np.uint8:
            content = base64.b64encode(_png(images[0])).decode("ascii")
            signature, instance = "image_bytes", {"image_bytes": {"b64": content}}
        else:
            signature, instance = "float_image", {"image": images[0].tolist()}
        try:
            response = requests.post(
                f"{self.source}:predict",
                json={"signature_name": signature, "instances": [instance]},
                timeout=self._timeout,
                # A redirected request would arrive as a GET without the image.
                allow_redirects=False,
            )
        except requests.Timeout:
            raise ConnectionError(
                f"{self.source} did not answer within {self._timeout} seconds"
            ) from None
        except requests.RequestException as error:
            raise ConnectionError(f"{self.source} gave no answer: {_cause(error)}") from error
        return self._tables(response.status_code, response.reason, response.content)

    def _tables(self, status: int, reason: str, content: bytes) -> Mapping[str, Any]:
        text = content.decode(errors="replace")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        message = answer.get("error") if isinstance(answer, dict) else None
        if status != 200 or message is not None:
            message = refusal(text if message is None else message) or reason
            kind = ConnectionError if status in _BUSY else ValueError
            raise kind(f"{self.source} answered with HTTP {status}: {message}")
        tables = named_tensors(answer)
        if tables is None:
            raise ValueError(
                f"{self.source} must answer with the JSON of TensorFlow Serving, `predictions` of "
                f"one image or `outputs`. Received: {refusal(text[:80]) or 'nothing'}"
            )
        return tables


def named_tensors(answer: Any) -> dict[str, Any] | None:
    """Find the tensors of one image in an answer of TensorFlow Serving.

    Args:
        answer: Its JSON, in row format, `{"predictions": [{name: value, …}]}`, or in column
            format, `{"outputs": {name: [value], …}}`.

    Returns:
        Nested lists by name, of a batch of one; `None` if it is neither.

    Example:
        >>> from keras_rpe.export.rest_client import named_tensors
        >>> named_tensors({"predictions": [{"num_instances": 3}]})
        {'num_instances': [3]}
    """
    if not isinstance(answer, dict):
        return None
    rows, columns = answer.get("predictions"), answer.get("outputs")
    if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict):
        return {name: [value] for name, value in rows[0].items()}
    return columns if isinstance(columns, dict) else None


def _cause(error: BaseException) -> str:
    """What happened first, without the layers that passed it on."""
    while error.__context__ is not None:
        error = error.__context__
    return refusal(error)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
