"""Serve a SavedModel with KServe, under the REST protocol of TensorFlow Serving.

    python kserve_server.py nuclei/1 --name nuclei --port 8501

`POST /v1/models/NAME:predict` segments, `GET /v1/models/NAME` tells whether the model is ready,
`GET /v1/models/NAME/metadata` lists its signatures, `GET /metrics` counts requests.
"""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi.responses import JSONResponse
from google.protobuf import json_format
from kserve import Model, ModelServer, model_server
from kserve.errors import InvalidInput
from predict_json import answer
from served_signatures import RequestError, ServedModel
from tensorflow_serving.apis import get_model_metadata_pb2


class SegmentationModel(Model):
    """A SavedModel as KServe runs it.

    Args:
        name: The name under which it is served.
        served: The SavedModel.
    """

    def __init__(self, name: str, served: ServedModel) -> None:
        super().__init__(name, return_response_headers=True)
        self.served = served
        self.ready = True

    async def predict(self, payload: bytes, headers: dict, response_headers: dict) -> bytes:
        """Answer one request in a thread, so the server can answer health checks meanwhile."""
        if not isinstance(payload, bytes):
            raise InvalidInput("This server speaks the v1 protocol only: /v1/models/NAME:predict")
        try:
            reply = await asyncio.to_thread(answer, self.served, payload)
        except RequestError as error:
            raise InvalidInput(str(error)) from None
        response_headers["content-type"] = "application/json"
        return reply

    async def metadata(self) -> dict:
        """Return the signatures, as TensorFlow Serving writes them."""
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=self.served.signatures)
        return {
            "model_spec": {
                "name": self.name,
                "signature_name": "",
                "version": str(self.served.version),
            },
            "metadata": {
                "signature_def": json_format.MessageToDict(
                    signatures, preserving_proto_field_name=True
                )
            },
        }


class WholeBody:
    """ASGI middleware that reads bodies up to a limit, and passes predict requests on as bytes.

    Args:
        app: The application.
        most: The largest body in bytes. A larger one is read but not kept, and gets status 413.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            parts = [*parts, part] if size <= self.most else []
        if size > self.most:
            reason = f"The body must be of at most {self.most} bytes. Received: {size}"
            await JSONResponse({"error": reason}, status_code=413)(scope, receive, send)
            return
        message = {"type": "http.request", "body": b"".join(parts), "more_body": False}
        messages = iter([message])

        async def replay() -> dict:
            return next(messages, None) or await receive()

        if scope["path"].endswith(":predict"):
            # KServe passes a body of this type to the model, which accepts NaN and, like TensorFlow
            # Serving, ignores the type that curl states.
            kept = [(key, value) for key, value in scope["headers"] if key != b"content-type"]
            scope = {**scope, "headers": [*kept, (b"content-type", b"text/plain")]}
        await self.app(scope, replay, send)


def main() -> None:
    """Load, warm up and serve until a signal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("saved_model", type=Path, help="folder of one version, such as nuclei/1")
    parser.add_argument("--name", help="default: that of the folder above the version")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument(
        "--max-megabytes", type=int, default=128, help="largest body of a request (default: 128)"
    )
    options = parser.parse_args()

    served = ServedModel(options.saved_model)
    requests = served.warm_up()
    print(f"warmed up with {requests} requests: {json.dumps(list(served.signatures))}", flush=True)

    model = SegmentationModel(options.name or options.saved_model.resolve().parent.name, served)
    app = model_server.app
    app.add_middleware(WholeBody, most=options.max_megabytes * 2**20)
    app.add_api_route(f"/v1/models/{model.name}/metadata", model.metadata, methods=["GET"])
    # One worker: every further worker would load the model again.
    ModelServer(
        http_port=options.port, workers=1, enable_grpc=False, enable_latency_logging=False
    ).start([model])


if __name__ == "__main__":
    main()
