"""Put in place what the page `docs/demo/index.html` needs: runtime, model and samples.

    pip install ".[onnx]" && python docs/demo/build.py
    python -m http.server --directory docs/demo

The runtime, onnxruntime-web, comes from npm; the model is the preset `nuclei`, exported; the
samples are images of scikit-image.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import onnx
from skimage import color, data, filters, io, util

import keras_rpe

HERE = Path(__file__).parent
BUILT = HERE / "built"
RUNTIME = "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"


def main() -> None:
    """Fill the folder `built` beside the page."""
    BUILT.mkdir(exist_ok=True)
    npm = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*npm, "--prefix", HERE], check=True)
    for name in RUNTIME:
        shutil.copy(HERE / "node_modules" / "onnxruntime-web" / "dist" / name, BUILT / name)
    model = keras_rpe.models.InstanceSegmenter.from_preset("nuclei")
    model.export(BUILT / "nuclei.onnx", format="onnx")
    require_diameter(BUILT / "nuclei.onnx")
    stain = filters.gaussian(color.rgb2hed(data.immunohistochemistry())[..., 0], 2)
    stain = util.img_as_ubyte((stain - stain.min()) / (stain.max() - stain.min()))
    galaxies = data.hubble_deep_field()[:512, :512]
    samples = {"hematoxylin": stain, "galaxies": galaxies, "coins": data.coins()}
    for name, image in samples.items():
        io.imsave(BUILT / f"{name}.png", image, check_contrast=False)
    size = sum(path.stat().st_size for path in BUILT.iterdir()) / 1e6
    print(f"{BUILT}: {size:.1f} MB")


def require_diameter(path: Path) -> None:
    """Take the default of the diameter out of a model, as the runtime gives it no other value."""
    model = onnx.load(path)
    defaults = [one for one in model.graph.initializer if one.name == "given_diameter"]
    for default in defaults:
        model.graph.initializer.remove(default)
    onnx.save(model, path)


if __name__ == "__main__":
    main()
