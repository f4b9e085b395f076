"""What a training run tells the preset that it ends with, and so its card."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_rpe.data import LabelPair
    from keras_rpe.models import InstanceSegmenter

_THRESHOLDS = [0.5, 0.7, 0.9]


def versions() -> dict[str, str]:
    """Versions of what trains a model, by name.

    Example:
        >>> from keras_rpe.cli.train_notes import versions
        >>> sorted(versions())
        ['keras', 'keras_rpe', 'numpy', 'python', 'tensorflow']
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_rpe.version import __version__

    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "keras_rpe": __version__,
    }


def commands(folder: Path, out: Path, settings: dict[str, Any], epochs: int) -> dict[str, str]:
    """The commands that train and evaluate again, with the settings that were used.

    Args:
        folder: Folder of the images.
        out: Folder of the run.
        settings: The settings of the run by the names of their options.
        epochs: Epochs at most.

    Example:
        >>> from pathlib import Path
        >>> from keras_rpe.cli.train_notes import commands
        >>> lines = commands(Path("A"), Path("B"), {"seed": 3, "preset": None}, 2)
        >>> lines["train"]
        'keras-rpe train A --out B --epochs 2 --seed 3'
        >>> lines["evaluate"]
        'keras-rpe evaluate A --preset B/preset --names B/validation.txt'
    """
    words = ["keras-rpe", "train", str(folder), "--out", str(out), "--epochs", str(epochs)]
    for key, value in settings.items():
        if value is not None and key not in ("folder", "image_names"):
            words += [f"--{key.replace('_', '-')}", str(value)]
    evaluate = ["keras-rpe", "evaluate", str(folder), "--preset", str(out / "preset")]
    for key in ("images", "instances"):
        if key in settings:
            evaluate += [f"--{key}", str(settings[key])]
    evaluate += ["--names", str(out / "validation.txt")]
    return {"train": shlex.join(words), "evaluate": shlex.join(evaluate)}


def held_out_figures(model: InstanceSegmenter, pairs: Sequence[LabelPair]) -> dict[str, Any]:
    """What the evaluation command prints for the images held out, and of which images that is.

    Args:
        model: The trained model.
        pairs: Images that were not trained on.
    """
    from keras_rpe.cli.evaluate_instances import match_pairs

    matchings, _ = match_pairs(model, pairs, _THRESHOLDS)
    figures = {f"AP at IoU {m.threshold:g}": round(m.average_precision, 4) for m in matchings}
    figures["PQ at IoU 0.5"] = round(matchings[0].panoptic_quality, 4)
    where = f"{len(pairs)} images held out, with {matchings[0].n_true} instances"
    return {"figures": figures, "figures_on": where}
