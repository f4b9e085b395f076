import csv
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas
import pytest
import tifffile
import zarr
from skimage.draw import ellipse

from keras_rpe.data import ImageFileError
from keras_rpe.large import segment, segment_large
from keras_rpe.metrics import matching
from keras_rpe.models import InstanceSegmenter

DIAMETER = 17.0


@pytest.fixture(scope="module")
def model() -> InstanceSegmenter:
    return InstanceSegmenter.from_preset("nuclei")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Touching cells on a tilted background, 120 x 620."""
    random = np.random.default_rng(0)
    image = np.linspace(10, 40, 620)[None] + random.normal(0, 4, (120, 620))
    for row in range(14, 120, 20):
        for column in range(12, 620, 22):
            shape = ellipse(row, column, *random.uniform(6, 11, 2), image.shape)
            image[shape] = random.uniform(90, 220)
    return np.clip(image, 0, 255).astype("uint8")


@pytest.fixture(scope="module")
def whole(model: InstanceSegmenter, image: np.ndarray) -> np.ndarray:
    return model.predict_instances(image, DIAMETER).labels


def assert_same_objects(found: np.ndarray, expected: np.ndarray) -> None:
    # Interpolation rounds to one side or the other, rarely.
    assert np.mean((found > 0) != (expected > 0)) < 1e-4
    (figures,) = matching(expected, found, [0.99])
    assert figures.tp == figures.n_true == figures.n_pred > 100


def test_tiles_make_up_the_whole_image(model, image, whole, tmp_path):
    calls = []
    found = segment_large(
        image,
        model,
        tmp_path / "a.tif",
        DIAMETER,
        tile=200,
        progress=lambda *counts: calls.append(counts),
    )
    assert found.diameter == DIAMETER
    assert calls[0][0] == 0
    assert calls[-1] == (len(calls) - 1,) * 2
    assert len(calls) > 3
    labels = tifffile.imread(found.labels)
    assert_same_objects(labels, whole)
    with found.table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found.count == labels.max()
    expected = model.predict_instances(image, DIAMETER)
    for number, row in enumerate(rows, start=1):
        mask = labels == number
        assert int(row["area_px"]) == mask.sum()
        places = np.argwhere(mask)
        center = [float(row["centroid_row"]), float(row["centroid_column"])]
        np.testing.assert_allclose(center, places.mean(axis=0), rtol=1e-4)
        box = tuple(int(row[name]) for name in ("top", "left", "bottom", "right"))
        assert box == (*places.min(axis=0), *(places.max(axis=0) + 1))
        same = np.bincount(whole[mask]).argmax()
        assert float(row["score"]) == pytest.approx(expected.scores[same - 1], abs=0.01)
    assert not (tmp_path / "a.tif.parts").exists()


@pytest.mark.parametrize("fragment", [0, None])
def test_a_heap_of_cells_is_cut_nowhere(tmp_path, fragment):
    model = InstanceSegmenter.from_preset("nuclei")
    model.decoder.fragment_area = fragment
    random = np.random.default_rng(2)
    image = random.normal(25, 4, (360, 360))
    for _ in range(500):
        place, axes = random.uniform(0, 360, 2), random.uniform(4, 12, 2)
        shape = ellipse(*place, *axes, image.shape, rotation=random.uniform(0, 3))
        image[shape] = random.uniform(60, 220) + random.normal(0, 6, len(shape[0]))
    image = np.clip(image, 0, 255).astype("uint8")
    whole = model.predict_instances(image, DIAMETER).labels
    found = segment_large(image, model, tmp_path / "a.tif", DIAMETER, tile=64)
    # A pixel between two cells on a border may go to the other, and a fragment on it may be joined
    # to another cell.
    objects, pixels = matching(whole, tifffile.imread(found.labels), [0.95, 0.99])
    share = 0.99 if fragment is None else 1.0
    assert objects.tp >= share * max(objects.n_true, objects.n_pred) > 250
    assert pixels.tp > 0.99 * pixels.n_true


def test_a_part_at_the_end_of_an_image_ends_with_it(model):
    """Beyond the end there would be other cells, which the last window sees."""
    image = np.zeros((16, 360), "uint8")

    def cells(part, start):
        found = model.predict_part(part, DIAMETER, (0.0, 1.0), (0.0, start))
        return found["cells"].shape[1]

    whole = cells(image, 0.0)
    octaves = np.log2(DIAMETER) - float(model.object_size.log_diameter)
    step = round(256 * 2 ** (round(8 * octaves) / 8)) / 256
    for begin in range(0, 4 * 16, 16):
        first = int(begin * step)
        here = cells(image[:, first:], begin * step - first)
        assert begin // model.output_stride + here == whole


def test_tiles_see_as_much_in_images_of_all_sizes(model, tmp_path, monkeypatch):
    """So memory does not grow with the image, although its windows are larger or smaller."""
    jobs = []

    def keep(job, *_):
        jobs.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(segment, "_segment_tiles", keep)
    for side in (900, 1100, 1500):
        with pytest.raises(KeyboardInterrupt):
            segment_large(np.eye(side), model, tmp_path / f"{side}.tif", DIAMETER, tile=400)
    assert len({tuple(job.tile) for job in jobs}) == 3
    assert len({job.span(0, 0).end for job in jobs}) == 1


def test_an_interrupted_call_continues(model, image, whole, tmp_path, monkeypatch):
    real, done, failures = segment.segment_tile, [], ["cannot be read"]

    def segment_tile(job, place):
        if len(done) == 2 and failures:
            raise ImageFileError(failures.pop())
        done.append(place)
        real(job, place)

    monkeypatch.setattr(segment, "segment_tile", segment_tile)
    arguments = (image, model, tmp_path / "labels.zarr", DIAMETER)
    with pytest.raises(ImageFileError, match="cannot be read"):
        segment_large(*arguments, tile=200)
    assert not (tmp_path / "labels.zarr").exists()
    with pytest.raises(ValueError, match="tile 200, not 300"):
        segment_large(*arguments, tile=300)
    segment_large(*arguments, tile=200)
    assert len(set(done)) == len(done)
    assert_same_objects(zarr.open_group(tmp_path / "labels.zarr")["0"][...], whole)
    with pytest.raises(ValueError, match="labels.zarr"):
        segment_large(*arguments, tile=200)
    shutil.rmtree(tmp_path / "labels.zarr")
    with pytest.raises(ValueError, match="labels.csv"):
        segment_large(*arguments, tile=200)


def test_workers_of_dask(model, image, whole, tmp_path):
    from distributed import Client

    zarr.save_array(tmp_path / "image.zarr", image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None)
    with client:
        found = segment_large(
            tmp_path / "image.zarr",
            "nuclei",
            tmp_path / "a.tif",
            DIAMETER,
            tile=200,
            client=client,
        )
        with pytest.raises(ValueError, match="`image` must be a path"):
            segment_large(image, "nuclei", tmp_path / "b.tif", client=client)
    assert_same_objects(tifffile.imread(found.labels), whole)


def test_a_full_disk_leaves_nothing_that_looks_whole(model, image, whole, tmp_path, monkeypatch):
    arguments = (image, model, tmp_path / "a.tif", DIAMETER, 200)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segment.JoinedLabels, "write", full)
        with pytest.raises(OSError, match="No space left"):
            segment_large(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif.parts"]

    def no_tile(*_):
        raise AssertionError("All tiles are there.")

    monkeypatch.setattr(segment, "segment_tile", no_tile)
    found = segment_large(*arguments, table="parquet")
    assert_same_objects(tifffile.imread(found.labels), whole)
    table = pandas.read_parquet(found.table)
    assert len(table) == found.count
    labels = tifffile.imread(found.labels)
    assert table["area_px"].tolist() == np.bincount(labels.ravel())[1:].tolist()


KILLED = """
import sys
from keras_rpe.large import segment_large
source, model, target = sys.argv[1:]
segment_large(source, model, target, 17.0, tile=200, progress=lambda n, _: print(n, flush=True))
"""


@pytest.mark.slow
def test_killed_at_any_moment(model, image, whole, tmp_path):
    zarr.save_array(tmp_path / "image.zarr", image)
    source, target, parts = (tmp_path / name for name in ("image.zarr", "a.tif", "a.tif.parts"))
    command = [sys.executable, "-c", KILLED, source, "nuclei", target]
    random, first = np.random.default_rng(0), []
    for lines in (1, 2, 1, 2, 1):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            counts = [int(process.stdout.readline()) for _ in range(lines)]
            first.append(min(counts))
            # The first tile takes seconds, as the model is traced for it, and the others do not.
            time.sleep(random.uniform(0, 5 if lines == 1 else 0.2))
            process.kill()
        if target.exists():  # It was faster.
            target.unlink()
            target.with_suffix(".csv").unlink()
    assert max(first) > 0
    begun = len(list(parts.glob("*.npz")))
    done = []
    found = segment_large(
        source, "nuclei", target, DIAMETER, tile=200, progress=lambda n, _: done.append(n)
    )
    assert done[0] == begun
    assert_same_objects(tifffile.imread(found.labels), whole)


@pytest.mark.slow
def test_a_worker_that_dies(model, image, whole, tmp_path):
    from distributed import Client

    zarr.save_array(tmp_path / "image.zarr", image)
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        pids = client.run(os.getpid)
        victims = [next(iter(pids.values()))]

        def progress(done: int, total: int) -> None:
            if done == 1 and victims:
                os.kill(victims.pop(), signal.SIGKILL)

        found = segment_large(
            tmp_path / "image.zarr",
            "nuclei",
            tmp_path / "a.tif",
            DIAMETER,
            tile=200,
            client=client,
            progress=progress,
        )
    assert not victims
    assert_same_objects(tifffile.imread(found.labels), whole)


def test_workers_that_are_lost(model, image, tmp_path, monkeypatch):
    import distributed

    class Killed(distributed.KilledWorker):
        def __init__(self):
            Exception.__init__(self)

    class Future:
        def result(self):
            raise Killed

    class Client:
        def map(self, *_, **__):
            return [Future()]

        def cancel(self, futures):
            futures.clear()

    monkeypatch.setattr(distributed, "as_completed", iter)
    zarr.save_array(tmp_path / "i.zarr", image)
    with pytest.raises(ConnectionError, match="Finished tiles are kept"):
        segment_large(tmp_path / "i.zarr", "nuclei", tmp_path / "a.tif", DIAMETER, client=Client())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tile": 3}, "`tile`"),
        ({"table": "xlsx"}, "`table`"),
        ({"diameter": -1}, "`diameter`"),
        ({"model": "digits"}, "coordinates=False"),
        ({"model": "boundaries"}, "InstanceSegmenter"),
        ({"image": "nowhere.tif"}, "nowhere.tif does not exist"),
    ],
)
def test_wrong_arguments(tmp_path, wrong, message):
    given = {"image": np.zeros((70, 70), "uint8"), "model": "nuclei", **wrong}
    with pytest.raises(ValueError, match=message):
        segment_large(**given, out=tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())
