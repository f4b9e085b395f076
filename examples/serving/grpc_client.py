"""Segment one image on a server over gRPC, and write the labels as a 16-bit PNG.

    python grpc_client.py image.png --out labels.png

It needs `grpcio`, `tensorflow-serving-api` (which brings TensorFlow), `numpy` and `pillow`.
"""

import argparse

import grpc
import numpy as np
from PIL import Image
from tensorflow import make_ndarray, make_tensor_proto
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def main() -> None:
    """Send the pixels and write the labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--out", default="labels.png")
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--name", default="nuclei")
    options = parser.parse_args()

    request = predict_pb2.PredictRequest()
    request.model_spec.name = options.name
    request.model_spec.signature_name = "serving_default"
    pixels = np.asarray(Image.open(options.image).convert("RGB"))
    request.inputs["image"].CopyFrom(make_tensor_proto(pixels[None]))
    # The default limit of 4 MB is enough for labels of 1100 x 1100 pixels.
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(options.server, options=unlimited) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            reply = stub.Predict(request, timeout=600)
        except grpc.RpcError as error:
            raise SystemExit(f"{error.code().name}: {error.details()}") from None
    labels = make_ndarray(reply.outputs["labels"])[0].astype(np.uint16)
    Image.fromarray(labels).save(options.out, "PNG")
    count = make_ndarray(reply.outputs["num_instances"])[0]
    print(f"{count} instances, labels in {options.out}")


if __name__ == "__main__":
    main()
