"""Random changes of the colors of a crop, in NumPy: the same on every backend."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# The lowest value that a power is taken of.
_SMALLEST = 1e-12


def _contrast_and_brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values in [0, 1]: contrast by up to 30 %, brightness by up to a tenth of the range."""
    mean = image.mean(axis=(0, 1))
    image = ((image - mean) * rng.uniform(0.7, 1.3) + mean).clip(0, 1)
    return (image + rng.uniform(-0.1, 0.1)).clip(0, 1)


def shaded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change float32 (h, w, 3) as lamps, lenses and cameras of microscopes do.

    Contrast, brightness and gamma change, half of the images are blurred, and all get a slight
    noise, the same in all channels. The lowest value, or 0 if that is lower, and the highest value
    stay the limits.
    """
    low = min(float(image.min()), 0.0)
    extent = float(image.max()) - low
    if extent == 0:
        return image
    image = _contrast_and_brightness((image - low) / extent, rng)
    if rng.random() < 0.5:
        deviation = max(rng.uniform(0, 1), 1e-3)
        side = np.exp(-0.5 / deviation**2)
        taps = np.array([side, 1.0, side]) / (1 + 2 * side)
        for axis in (0, 1):
            image = ndimage.correlate1d(image, taps, axis, mode="nearest")
    image = np.maximum(image, _SMALLEST) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    noise = rng.standard_normal((*image.shape[:2], 1), np.float32)
    image = (image + np.float32(rng.uniform(0, 0.02)) * noise).clip(0, 1)
    return (image * extent + low).astype(np.float32)


def recolored(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change contrast, brightness and saturation of a photograph, float32 (h, w, 3) in 0..255."""
    image = _contrast_and_brightness(image / 255, rng)
    value = image.max(axis=-1, keepdims=True)
    depth = value - image  # proportional to the saturation
    most = value / np.maximum(depth.max(axis=-1, keepdims=True), _SMALLEST)
    factor = np.minimum(np.exp(rng.uniform(-0.62, 0.62)), most)
    return (255 * (value - factor * depth)).clip(0, 255).astype(np.float32)
