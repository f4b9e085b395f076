"""Measure how well digits are separated, by network, by loop, and by class of touching digits.

    python benchmarks/digits.py --models digits --source mnist.npz
    python benchmarks/digits.py --models "every loop=runs/e0/preset,runs/e1/preset" \
        "before the loops=runs/b0/preset,runs/b1/preset" --authors mean_shift_digits.npz

`examples/digits.py` trains the presets. Presets after one name, separated by commas, differ only in
their seed, and their row has the mean, with the lowest and the highest value beside it. Scenes are
the test scenes of `examples/digits.py`, with digits that no training has seen.

- PQ: panoptic quality, with the counts of all scenes pooled and the background as a segment.
- wrong: the share of the scenes in which the number of digits found is wrong.
- apart: the share of the pairs of touching digits of which both were found, as different instances
  with an IoU of at least 0.5.

`--authors` takes an .npz with 30 test scenes of the paper's authors and the embeddings of their
network: `image` (N, 64, 64, 3), `instances` (N, 64, 64) and `embeddings` (loops, N, 64, 64, 3).
The decoder of this project then also reads instances off those embeddings, after each loop. The
background is the region around the densest point of the sphere, since their network has no score
for it.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

TOUCH = 1  # Pixels of touching digits are neighbors, diagonal ones too.
SIMILARITY, LEAST_AREA = 0.96, 16  # For the decoder on the authors' embeddings.


def named_presets(text: str) -> tuple[str, list[str]]:
    """Split NAME=PRESET,PRESET or only PRESET."""
    name, equals, presets = text.partition("=")
    return (name, presets.split(",")) if equals else (text, [text])


def quality(truths: list[np.ndarray], found: list[np.ndarray]) -> tuple[float, float]:
    """Panoptic quality with the background, and the share of wrong counts."""
    from keras_rpe.metrics import matching

    total, *others = (matching(a + 1, b + 1) for a, b in zip(truths, found))
    for one in others:
        total = total + one
    wrong = [len(np.unique(a[a > 0])) != len(np.unique(b[b > 0])) for a, b in zip(truths, found)]
    return total.panoptic_quality, float(np.mean(wrong))


def touching_pairs(instances: np.ndarray) -> list[tuple[int, int]]:
    """Ids of the digits that have adjacent pixels."""
    from scipy.ndimage import maximum_filter

    ids = [int(i) for i in np.unique(instances) if i]
    reach = {i: maximum_filter(instances == i, 2 * TOUCH + 1) for i in ids}
    return [
        (i, j)
        for index, i in enumerate(ids)
        for j in ids[index + 1 :]
        if (reach[i] & (instances == j)).any()
    ]


def pairs_apart(
    truths: list[dict[str, np.ndarray]], found: list[np.ndarray]
) -> dict[str, tuple[int, float]]:
    """Number of touching pairs and the share that is separated, for equal and unequal classes."""
    apart: dict[str, list[bool]] = {"same class": [], "different classes": []}
    for truth, labels in zip(truths, found):
        instances, classes = truth["instances"], truth["classes"]
        pairs = touching_pairs(instances)
        matched = {
            i: matched_instance(instances == i, labels) for i in {i for p in pairs for i in p}
        }
        for i, j in pairs:
            like = classes[instances == i][0] == classes[instances == j][0]
            both = matched[i] is not None and matched[j] is not None and matched[i] != matched[j]
            apart["same class" if like else "different classes"].append(both)
    return {name: (len(all_), float(np.mean(all_))) for name, all_ in apart.items() if all_}


def matched_instance(mask: np.ndarray, labels: np.ndarray) -> int | None:
    """The instance whose IoU with a mask is at least 0.5, if there is one."""
    ids, counts = np.unique(labels[mask & (labels > 0)], return_counts=True)
    for i, both in zip(ids, counts):
        if both >= 0.5 * (mask | (labels == i)).sum():
            return int(i)
    return None


def decode_authors(embeddings: np.ndarray) -> list[np.ndarray]:
    """Instances `(N, 64, 64)` by this project's decoder from embeddings `(N, 64, 64, 3)`."""
    from keras_rpe.layers import InstanceDecoder

    decoder = InstanceDecoder(similarity_threshold=SIMILARITY, min_area=LEAST_AREA)
    x = embeddings.astype("float32")
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    foreground = np.ones(x.shape[:3], "float32")
    for points, score in zip(x.reshape(len(x), -1, x.shape[-1]), foreground):
        near = (points @ points.T + 1) / 2 >= SIMILARITY
        score.flat[near[near.sum(axis=1).argmax()]] = 0.0
    return list(np.asarray(decoder(x, foreground)["labels"]))


def print_rows(title: str, rows: dict[str, list[list[float]]], columns: list[str]) -> None:
    """Print the mean of each row's models, and their lowest and highest if there are several."""
    print(f"\n{title}")
    print(f"{'':22s}" + "".join(f"{column:>27s}" for column in columns))
    for name, values in rows.items():
        cells = ""
        for one in np.array(values).T:
            spread = f" ({one.min():.3f}-{one.max():.3f})" if len(one) > 1 else ""
            cells += f"{f'{one.mean():.3f}{spread}':>27s}"
        print(f"{name:22s}{cells}")


def print_scenes(models: dict[str, list[Any]], options: argparse.Namespace) -> None:
    """The table of generated scenes, and the table of touching pairs."""
    from keras_rpe.data import digits

    scenes, like = (
        flat(
            digits(
                options.source,
                "test",
                num_scenes=options.scenes,
                classes=True,
                same_class_share=share,
            )
        )
        for share in (0.0, 1.0)
    )
    truths = [truth for _, truth in scenes + like]
    instances = [truth["instances"] for truth in truths]
    rows: dict[str, list[list[float]]] = {name: [] for name in models}
    like_rows: dict[str, list[list[float]]] = {name: [] for name in models}
    found_apart: dict[str, list[list[float]]] = {name: [] for name in models}
    heads: list[str] = []
    for name, members in models.items():
        for model in members:
            found = [model.predict_instances(image).labels for image, _ in scenes + like]
            count = len(scenes)
            rows[name].append([*quality(instances[:count], found[:count])])
            like_rows[name].append([*quality(instances[count:], found[count:])])
            pairs = pairs_apart(truths, found)
            found_apart[name].append([share for _, share in pairs.values()])
            heads = [f"{kind} ({number})" for kind, (number, _) in pairs.items()]
    print_rows(f"{options.scenes} scenes of any digits", rows, ["PQ", "wrong"])
    print_rows(f"{options.scenes} scenes of one class each", like_rows, ["PQ", "wrong"])
    print_rows("Pairs that touch in all of these scenes: apart", found_apart, heads)


def flat(dataset: Any) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The scenes of all batches."""
    scenes = []
    for images, labels in dataset:
        maps = {key: value.numpy() for key, value in labels.items()}
        scenes += [
            (image, {key: value[k] for key, value in maps.items()})
            for k, image in enumerate(images.numpy())
        ]
    return scenes


def print_authors(models: dict[str, list[Any]], path: Path) -> None:
    """The table of the authors' scenes: the models, and the decoder on the authors' embeddings."""
    with np.load(path, allow_pickle=False) as file:
        images, embeddings = file["image"], file["embeddings"]
        truths = list(file["instances"].astype("int32"))
    rows = {
        name: [
            [*quality(truths, [model.predict_instances(image).labels for image in images])]
            for model in members
        ]
        for name, members in models.items()
    }
    for loop, one in enumerate(embeddings, start=1):
        rows[f"authors, loop {loop}"] = [[*quality(truths, decode_authors(one))]]
    print_rows(f"{len(images)} scenes of the authors", rows, ["PQ", "wrong"])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", type=named_presets, nargs="+", default=[("digits", ["digits"])],
        metavar="NAME=PRESET,PRESET",
    )  # fmt: skip
    parser.add_argument("--source", help="an .npz file; default: Keras downloads MNIST")
    parser.add_argument("--scenes", type=int, default=500, help="0 for none")
    parser.add_argument("--authors", type=Path)
    options = parser.parse_args()
    if options.scenes < 0:
        parser.error(f"--scenes needs a number from 0. Received: {options.scenes}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras_rpe.models import InstanceSegmenter

    models = {
        name: [InstanceSegmenter.from_preset(preset) for preset in presets]
        for name, presets in options.models
    }
    if options.scenes:
        print_scenes(models, options)
    if options.authors is not None:
        print_authors(models, options.authors)


if __name__ == "__main__":
    main()
