"""Segment an image with a LiteRT model, with only NumPy and ai-edge-litert.

    pip install numpy ai-edge-litert
    python segment.py nuclei.tflite photo.ppm --out labels.npy

The image is a binary 8-bit PPM (P6) or PGM (P5) file, which every image tool writes, or a NumPy
array in an `.npy` file, uint8 of shape (H, W) or (H, W, 3). On a phone the calls are the same: fill
`image`, run the signature, read `labels`.
"""

import argparse
import re
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

HEADER = re.compile(rb"(P[56])(?:\s+#[^\n]*)*\s+(\d{1,6})\s+(\d{1,6})\s+(\d{1,5})\s")


def read_image(path: Path) -> np.ndarray:
    """Read an image, uint8 (H, W, 3)."""
    if path.suffix == ".npy":
        image = np.load(path, allow_pickle=False)
    else:
        content = path.read_bytes()
        header = HEADER.match(content)
        if header is None or int(header[4]) != 255:
            raise SystemExit(f"{path} must be a PPM or PGM file of 8 bit, or a .npy array.")
        width, height, channels = int(header[2]), int(header[3]), 3 if header[1] == b"P6" else 1
        pixels = np.frombuffer(content, "uint8", offset=header.end())
        if pixels.size < width * height * channels:
            raise SystemExit(f"{path} is cut short.")
        image = pixels[: width * height * channels].reshape(height, width, channels)
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise SystemExit(
            f"{path} must be uint8 (H, W) or (H, W, 3). Received: {image.dtype} {image.shape}"
        )
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def main() -> None:
    """Segment one image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--out", type=Path, default=Path("labels.npy"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    segment = Interpreter(str(options.model), num_threads=options.threads).get_signature_runner(
        "serving_default"
    )
    result = segment(image=read_image(options.image)[None])
    count = int(result["num_instances"][0])
    np.save(options.out, result["labels"][0])
    print(f"{count} instances, labels in {options.out}")
    print("first row, first column, last row + 1, last column + 1, score")
    for box, score in zip(result["boxes"][0, :count], result["scores"][0, :count]):
        print(*box, f"{score:.2f}")


if __name__ == "__main__":
    main()
