r"""Train an instance segmenter on all devices of a machine, or of several.

    python examples/distributed/train.py FOLDER --out runs/mine
    KERAS_BACKEND=jax python examples/distributed/train.py FOLDER --out runs/mine

FOLDER is one that `keras-rpe train` takes. On TensorFlow, a `MirroredStrategy` takes all devices of
this machine; on JAX, `keras.distribution.DataParallel` does. Each device gets an equal part of each
batch, and all of them share the weights.

On JAX, several machines train together. Each runs the same command with its own `--process`:

    KERAS_BACKEND=jax python examples/distributed/train.py FOLDER --out runs/mine \
        --coordinator HOST:PORT --processes 2 --process 0

FOLDER must be there on each, and each makes crops of its own share of the images. The first one
writes the preset. `fit` of Keras 3 does not run under TensorFlow's `MultiWorkerMirroredStrategy`.

`--virtual-devices 2` makes two devices of a CPU, to try it out.
"""

import argparse
import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path


def devices_of_tensorflow(virtual: int) -> tuple[AbstractContextManager, int]:
    """The scope in which the model is made, and the number of devices."""
    import tensorflow as tf

    names = None
    if virtual:
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * virtual
        tf.config.set_logical_device_configuration(cpu, parts)
        names = [f"CPU:{k}" for k in range(virtual)]
    strategy = tf.distribute.MirroredStrategy(names)
    return strategy.scope(), strategy.num_replicas_in_sync


def devices_of_jax(options: argparse.Namespace) -> tuple[AbstractContextManager, int]:
    """The same; all processes wait for one another here."""
    if options.virtual_devices:
        flag = f"--xla_force_host_platform_device_count={options.virtual_devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    import jax

    if options.coordinator:
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
    import keras

    # The images are divided below.
    parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(parallel)
    return contextlib.nullcontext(), jax.device_count()


def main() -> None:
    """Train, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8, help="of a device")
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--preset", help="fine-tune this preset instead of starting anew")
    parser.add_argument("--virtual-devices", type=int, default=0)
    parser.add_argument("--coordinator", metavar="HOST:PORT")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    options = parser.parse_args()

    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend == "jax":
        scope, devices = devices_of_jax(options)
    elif options.processes == 1:
        scope, devices = devices_of_tensorflow(options.virtual_devices)
    else:
        parser.error("--processes needs KERAS_BACKEND=jax")
    import keras

    from keras_rpe.data import label_folder
    from keras_rpe.models import InstanceSegmenter

    print(f"process {options.process}: {devices} devices in all", flush=True)
    keras.utils.set_random_seed(0)  # All processes start with the same weights.
    images = label_folder(options.folder)
    each = len(images) // options.processes
    if each == 0:
        parser.error(f"{options.folder} has {len(images)} images for {options.processes} processes")
    own = images[options.process :: options.processes][:each]
    # So many crops of each image that all batches are whole, as each device needs an equal part.
    batch = options.batch_size * devices // options.processes
    dataset = own.crops(options.crop_size, batch, repeats=batch, seed=options.process)
    with scope:
        if options.preset:
            model = InstanceSegmenter.from_preset(options.preset)
        else:
            model = InstanceSegmenter("unet_small")
        model.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=1.0))
    first = options.process == 0
    history = model.fit(dataset, epochs=options.epochs, verbose=2 if first else 0)
    if first:
        if backend == "jax":  # The others have ended, and a file needs none of their devices.
            keras.distribution.set_distribution(None)
            model = model.with_dtype_policy("float32")
        notes = {"task": "instance segmentation", "trained_on": str(options.folder)}
        model.save_to_preset(options.out / "preset", notes)
        print(f"loss {history.history['loss'][-1]:.4f}, written to {options.out / 'preset'}")


if __name__ == "__main__":
    main()
