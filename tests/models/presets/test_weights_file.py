import shutil

import h5py
import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter, PresetError
from keras_rpe.models.presets import WEIGHTS
from keras_rpe.models.presets.files import weight_shapes


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, entry: names.append(name) if hasattr(entry, "shape") else None)
    return sorted(names)


@pytest.fixture
def altered(preset, forged, tmp_path):
    """A preset after a function of its open weights file and the name of a weight."""

    def alter(change) -> None:
        path = tmp_path / "weights.h5"
        shutil.copy(preset / WEIGHTS, path)
        with h5py.File(path, "a") as file:
            kernels = [name for name in _names(file) if file[name].ndim == 4]
            change(file, kernels[0])
        return forged(weights=path)

    return alter


def _replace(value):
    def change(file: h5py.File, name: str) -> None:
        del file[name]
        file[name] = value

    return change


def test_shapes_are_those_of_the_model(preset, model) -> None:
    assert sorted(weight_shapes(preset / WEIGHTS).elements()) == sorted(
        tuple(v.shape) for v in model.variables
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replace(np.zeros((3, 3, 7, 7), "float32")), "do not fit the model"),
        (_replace(h5py.ExternalLink("/etc/passwd", "/")), "is a link"),
        (_replace(h5py.SoftLink("/layers")), "is a link"),
        (_replace(np.array([b"text"] * 4)), "holds no numbers"),
        (lambda file, name: file.create_dataset("more", data=np.zeros(77)), "the model fewer"),
        (lambda file, name: file.pop(name), "do not fit the model"),
    ],
)
def test_weights_that_do_not_fit_or_lead_elsewhere_are_refused(altered, change, message) -> None:
    with pytest.raises(PresetError, match=message) as error:
        InstanceSegmenter.from_preset(altered(change))
    assert "\n" not in str(error.value)


def test_data_in_other_files_are_refused(altered, tmp_path) -> None:
    (tmp_path / "secret").write_bytes(b"\1" * 4000)

    def external(file: h5py.File, name: str) -> None:
        shape = file[name].shape
        del file[name]
        file.create_dataset(
            name, shape, "float32", external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        )

    def virtual(file: h5py.File, name: str) -> None:
        layout = h5py.VirtualLayout(file[name].shape, "float32")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "x", file[name].shape)
        del file[name]
        file.create_virtual_dataset(name, layout)

    for change in (external, virtual):
        with pytest.raises(PresetError, match="has its data elsewhere"):
            InstanceSegmenter.from_preset(altered(change))


def test_a_bomb_is_refused_before_it_is_unpacked(altered) -> None:
    def bomb(file: h5py.File, name: str) -> None:
        del file[name]
        file.create_dataset(
            name, (1 << 20, 1 << 10), "float32", chunks=(1 << 10, 1 << 10), compression="gzip"
        )

    with pytest.raises(PresetError, match="is too large"):
        InstanceSegmenter.from_preset(altered(bomb))


def test_weights_that_are_not_finite_are_refused(altered) -> None:
    def spoil(file: h5py.File, name: str) -> None:
        file[name][0] = np.nan

    with pytest.raises(PresetError, match="is not finite"):
        InstanceSegmenter.from_preset(altered(spoil))


def test_cut_files_are_refused(preset, forged, tmp_path) -> None:
    content = (preset / WEIGHTS).read_bytes()
    path = tmp_path / "cut.h5"
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(PresetError, match="damaged or of another kind"):
            InstanceSegmenter.from_preset(forged(weights=path))
