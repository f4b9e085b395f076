"""Files that are refused: configurations, weights, archives."""

import json
import stat
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from keras_rpe.layers import InstanceDecoder
from keras_rpe.models import InstanceSegmenter, PresetError
from keras_rpe.models.presets import CARD, CONFIG, FILES, METADATA, WEIGHTS
from keras_rpe.models.presets.files import build_model, check_config, check_size, unpack


def _with_backbone(layer: dict):
    def edit(config: dict) -> None:
        inputs = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="victim")(inputs)
        backbone = keras.saving.serialize_keras_object(keras.Model(inputs, x))
        for entry in backbone["config"]["layers"]:
            if entry["config"]["name"] == "victim":
                entry.update(layer)
        config["config"]["backbone"] = backbone

    return edit


def test_a_lambda_layer_is_refused_and_not_run(forged, tmp_path) -> None:
    mark = str(tmp_path / "ran")
    layer = keras.layers.Lambda(lambda x: (open(mark, "w"), x)[1])  # noqa: PTH123, SIM115
    folder = forged(_with_backbone(keras.saving.serialize_keras_object(layer)))
    with pytest.raises(PresetError, match="Lambda can run code") as error:
        InstanceSegmenter.from_preset(folder)
    assert "\n" not in str(error.value)
    assert not Path(mark).exists()


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "os", "class_name": "system", "registered_name": "system"},
        {"module": "evil.layers", "class_name": "Evil", "registered_name": "evil>Evil"},
        {"module": "keras_hub.layers", "class_name": "Any", "registered_name": "keras_hub>Any"},
        {"module": "keras.layers", "class_name": "TFSMLayer", "registered_name": None},
        {"module": None, "class_name": "__lambda__", "registered_name": None},
        {"module": None, "class_name": "Strange", "registered_name": None},
    ],
)
def test_foreign_and_unsafe_classes_are_refused(forged, layer: dict) -> None:
    with pytest.raises(PresetError, match=layer["class_name"]):
        InstanceSegmenter.from_preset(forged(_with_backbone(layer)))


def test_trusted_packages_may_be_named() -> None:
    layer = {"module": "mine", "class_name": "A", "registered_name": "mine>A", "config": {}}
    config = {"registered_name": "keras_rpe>Task", "class_name": "Task", "config": [layer]}
    with pytest.raises(PresetError, match=r"trusted_packages.*'mine>A'"):
        check_config(config, "The model")
    check_config(config, "The model", trusted_packages=("mine",))


def test_what_is_not_a_keras_rpe_model_is_refused(forged) -> None:
    inputs = keras.Input((3,))
    other = keras.saving.serialize_keras_object(keras.Model(inputs, inputs))
    layer = keras.saving.serialize_keras_object(InstanceDecoder())
    system = {"module": "os", "class_name": "system", "config": {}, "registered_name": "system"}
    nope = {"class_name": "Nope", "registered_name": "keras_rpe>Nope", "config": {}}
    for config in (other, layer, system, nope):
        with pytest.raises(PresetError, match=r"must describe a|cannot be loaded") as error:
            InstanceSegmenter.from_preset(forged(lambda _, config=config: config))
        assert "\n" not in str(error.value)


def test_deep_and_long_configurations_are_refused() -> None:
    deep: dict = {"registered_name": "keras_rpe>Task"}
    for _ in range(500):
        deep = {"registered_name": "keras_rpe>Task", "config": deep}
    long = {"registered_name": "keras_rpe>Task", "config": [0] * 300_000}
    for config in (deep, long):
        with pytest.raises(PresetError, match="nested 100 deep"):
            check_config(config, "The model")


def test_damaged_arguments_are_one_sentence(forged) -> None:
    def edit(config: dict) -> None:
        config["config"]["embedding_dim"] = "many"

    with pytest.raises(PresetError, match="cannot be loaded") as error:
        InstanceSegmenter.from_preset(forged(edit))
    assert "\n" not in str(error.value)


def test_nothing_is_allocated_for_a_model_that_does_not_fit(forged) -> None:
    """24 GB of weights: they would not fit here, and are not asked for."""
    policy = keras.config.dtype_policy()

    def edit(config: dict) -> None:
        config["config"]["fusion_filters"] = 32_768

    with pytest.raises(PresetError, match="do not fit the model"):
        InstanceSegmenter.from_preset(forged(edit))
    with pytest.raises(PresetError, match="would take"):
        InstanceSegmenter.from_preset(forged(edit), load_weights=False)
    # What was refused is not made later, either.
    with keras.StatelessScope():
        pass
    assert keras.config.dtype_policy() == policy


def test_random_weights_are_initialised(model) -> None:
    config = keras.saving.serialize_keras_object(model)
    built = build_model(json.loads(json.dumps(config)), "The model", check_size)
    kernels = [v for v in built.trainable_variables if v.name == "kernel"]
    assert kernels
    assert all(np.std(keras.ops.convert_to_numpy(kernel.value)) > 0 for kernel in kernels)


def _replace(value):
    def change(file: h5py.File, name: str) -> None:
        del file[name]
        file[name] = value

    return change


def _external(file: h5py.File, name: str) -> None:
    shape = file[name].shape
    del file[name]
    where = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(name, shape, "float32", external=where)


def _virtual(file: h5py.File, name: str) -> None:
    layout = h5py.VirtualLayout(file[name].shape, "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", file[name].shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def _bomb(file: h5py.File, name: str) -> None:
    del file[name]
    chunks = (1 << 10, 1 << 10)
    file.create_dataset(name, (1 << 20, 1 << 10), "float32", chunks=chunks, compression="gzip")


def _nan(file: h5py.File, name: str) -> None:
    file[name][0] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replace(np.zeros((3, 3, 7, 7), "float32")), "do not fit the model"),
        (lambda file, name: file.create_dataset("more", data=np.zeros(77)), "the model fewer"),
        (lambda file, name: file.pop(name), "do not fit the model"),
        (lambda file, name: file.create_group("a/" * 200), "too deep"),
        (_replace(h5py.ExternalLink("/etc/passwd", "/")), "is a link"),
        (_replace(h5py.SoftLink("/layers")), "is a link"),
        (_replace(np.array([b"text"] * 4)), "holds no numbers"),
        (_external, "has its data elsewhere"),
        (_virtual, "has its data elsewhere"),
        (_bomb, "is too large"),
        (_nan, "is not finite"),
    ],
)
def test_weights_are_refused(preset, forged, tmp_path, change, message) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes((preset / WEIGHTS).read_bytes())
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visititems(lambda name, entry: names.append(name) if hasattr(entry, "ndim") else None)
        change(file, next(name for name in sorted(names) if file[name].ndim == 4))
    with pytest.raises(PresetError, match=message) as error:
        InstanceSegmenter.from_preset(forged(weights=path.read_bytes()))
    assert "\n" not in str(error.value)


def test_cut_weights_are_refused(preset, forged) -> None:
    content = (preset / WEIGHTS).read_bytes()
    for share in (0.0, 0.1, 0.99):
        with pytest.raises(PresetError, match="damaged or of another kind"):
            InstanceSegmenter.from_preset(forged(weights=content[: int(share * len(content))]))


def _archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {CONFIG: b"{}", **members}.items():
            file.writestr(name, content)
    return path


def _refused(archive: Path, folder: Path, message: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    before = set(archive.parent.rglob("*"))
    with pytest.raises(PresetError, match=message) as error:
        unpack(archive, folder, "The archive", FILES)
    assert "\n" not in str(error.value)
    allowed = {folder / name for name in FILES}
    assert set(archive.parent.rglob("*")) - before <= allowed


@pytest.mark.parametrize(
    "name",
    [
        "../metadata.json",
        "/metadata.json",
        "a/../../metadata.json",
        "..\\metadata.json",
        "a/b/metadata.json",
        "evil.py",
        "a/metadata.json",
    ],
)
def test_members_that_climb_out_or_do_not_belong_are_refused(tmp_path, name: str) -> None:
    path = _archive(tmp_path / "evil.zip", **{name: b"{}"})
    _refused(path, tmp_path / "a" / "b", "must hold")


def test_links_and_bombs_are_refused(tmp_path) -> None:
    link = tmp_path / "link.zip"
    with zipfile.ZipFile(link, "w") as file:
        info = zipfile.ZipInfo(CONFIG)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    _refused(link, tmp_path / "out", "must hold")
    _refused(
        _archive(tmp_path / "bomb.zip", **{WEIGHTS: bytes(200_000_000)}),
        tmp_path / "out",
        "grows from",
    )
    many = _archive(tmp_path / "many.zip", **{f"{k}/config.json": b"{}" for k in range(200)})
    _refused(many, tmp_path / "out", "201 files")


def test_a_member_larger_than_it_says_is_refused(tmp_path) -> None:
    path = _archive(tmp_path / "liar.zip", **{METADATA: b"x" * 5_000, CARD: b"y"})
    content = path.read_bytes()
    changed = content.replace((5_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert changed != content
    path.write_bytes(changed)
    _refused(path, tmp_path / "out", "damaged")


def test_damaged_archives_are_refused(preset, tmp_path) -> None:
    path = tmp_path / "damaged.zip"
    content = _archive(path, **{WEIGHTS: (preset / WEIGHTS).read_bytes()}).read_bytes()
    middle = len(content) // 2
    spoilt = content[:middle] + bytes(50) + content[middle + 50 :]
    for damaged in (b"", b"text", content[:middle], spoilt):
        path.write_bytes(damaged)
        _refused(path, tmp_path / "out", "damaged")
