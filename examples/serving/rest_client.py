"""Segment one image on a server over REST, and write the labels as a 16-bit PNG.

    python rest_client.py image.png --out labels.png

It needs only `requests`, `numpy` and `pillow`.
"""

import argparse
import base64
import io

import numpy as np
import requests
from PIL import Image


def main() -> None:
    """Send the file and write the labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--out", default="labels.png")
    parser.add_argument("--url", default="http://localhost:8501/v1/models/nuclei")
    options = parser.parse_args()

    # A PNG or JPEG file can be sent as it is; this code accepts any file that Pillow reads.
    file = io.BytesIO()
    Image.open(options.image).convert("RGB").save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    reply = requests.post(
        options.url + ":predict",
        json={"signature_name": "image_bytes", "instances": [{"b64": content}]},
        timeout=600,
    )
    if not reply.ok:
        raise SystemExit(f"{reply.status_code}: {reply.json()['error']}")
    result = reply.json()["predictions"][0]
    height, width = result["size"]
    labels = np.array(result["labels"], np.uint16)[:height, :width]
    Image.fromarray(labels).save(options.out, "PNG")
    print(f"{result['num_instances']} instances, labels in {options.out}")


if __name__ == "__main__":
    main()
