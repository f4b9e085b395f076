"""A real image that is on every machine."""

from __future__ import annotations

import numpy as np


def demo_image() -> np.ndarray:
    """Give the nuclear stain of a section of colon, an image that comes with scikit-image.

    Returns:
        uint8 `(512, 512)`.
    """
    from skimage import data
    from skimage.color import rgb2hed
    from skimage.filters import gaussian
    from skimage.util import img_as_ubyte

    # Of the two dyes in the section, haematoxylin is the one that binds to nuclei. To separate
    # the dyes enlarges the noise.
    stain = gaussian(rgb2hed(data.immunohistochemistry())[..., 0], 2)
    return img_as_ubyte(np.clip(stain / stain.max(), 0, 1))
