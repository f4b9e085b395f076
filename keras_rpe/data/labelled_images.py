"""A sequence of images with their label maps, and batches of crops of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.data.images import LabelFolderError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keras_rpe.data.crops import LabelledImage


class LabelMaps(NamedTuple):
    """An image with the instance and the class of each pixel.

    Attributes:
        image: (H, W), (H, W, 3) or (H, W, 4), as the file stores it.
        instances: int32 (H, W), 0 for the background, ids from 1, `VOID` (-1).
        classes: int32 (H, W), 0 for the background, classes from 1, `VOID` where `instances` is;
            or `None`, where only instances are known.
    """

    image: np.ndarray
    instances: np.ndarray
    classes: np.ndarray | None


class LabelledImages(Sequence[LabelMaps]):
    """Images with their label maps, each of which is read when it is indexed.

    `label_folder`, `pascal_voc`, `coco_instances` and `coco_panoptic` return such a sequence.
    A slice of it, `subset` and `split` are shorter sequences of this kind, and `+` joins two.

    Attributes:
        names: The name of each image, without ending.
        class_names: The names of the classes, of which the first is class 1, where they are known.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data import LabelledImages, LabelMaps
        >>> def read(side):
        ...     return LabelMaps(np.zeros((side, side), "uint8"), np.eye(side, dtype="int32"), None)
        >>> images = LabelledImages({"a": 40, "b": 50, "c": 60, "d": 70}, read, classes=False)
        >>> training, validation = images.split(0.25)
        >>> batch, labels = next(iter(training.crops(32, batch_size=2, seed=1)))
        >>> len(training), validation[0].instances.max(), batch.shape, labels.shape
        (3, np.int32(1), TensorShape([2, 32, 32, 3]), TensorShape([2, 32, 32]))
    """

    def __init__(
        self,
        files: Mapping[str, Any],
        read: Callable[[Any], LabelMaps],
        class_names: Sequence[str] | None = None,
        *,
        photographs: bool = True,
        void: bool = True,
        classes: bool = True,
    ) -> None:
        """Keep what `read` takes for each name.

        Args:
            files: What there is to read, by the names of the images.
            read: Reads one.
            class_names: As the attribute.
            photographs: Whether crops are augmented as photographs, as `crops` says.
            void: Whether pixels may be void; then what lies beyond an image is void as well.
            classes: Whether crops have classes.
        """
        self.names = tuple(files)
        self.class_names = None if class_names is None else tuple(class_names)
        self._files = dict(files)
        self._read = read
        self._options = {"photographs": photographs, "void": void, "classes": classes}

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.names[:3])) + (", ..." if len(self) > 3 else "")
        return f"<{len(self)} LabelledImages: {shown}>"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[LabelMaps]:
        return map(self._read, self._files.values())

    @overload
    def __getitem__(self, index: int) -> LabelMaps: ...
    @overload
    def __getitem__(self, index: slice) -> LabelledImages: ...

    def __getitem__(self, index: int | slice) -> LabelMaps | LabelledImages:
        if isinstance(index, slice):
            return self._of(self.names[index])
        return self._read(self._files[self.names[index]])

    def _of(self, names: Iterable[str]) -> LabelledImages:
        files = {name: self._files[name] for name in names}
        return LabelledImages(files, self._read, self.class_names, **self._options)

    def __add__(self, other: LabelledImages) -> LabelledImages:
        """Both sequences as one, such as two folders to train on.

        Raises:
            ValueError: If they share a name, or differ in their classes or in what is void.
        """
        mine, its = ((one.class_names, one._options) for one in (self, other))
        shared = sorted({*self.names} & {*other.names})
        if mine != its or shared:
            problem = f"both have {shared[0]!r}" if shared else f"{mine} and {its}"
            raise ValueError(
                "Images to add must have other names, and the same classes and kind of labels. "
                f"Received: {problem}"
            )
        files = {n: (one._read, one._files[n]) for one in (self, other) for n in one.names}
        return LabelledImages(files, _read_of_either, self.class_names, **self._options)

    def repeated(self, count: int) -> LabelledImages:
        """The same images so many times, such as those of a small folder beside a large one.

        The names of the copies are NAME~2, NAME~3, …

        Args:
            count: How many times, from 1.

        Raises:
            ValueError: If `count` is not a positive integer.
        """
        files = {
            name if copy == 1 else f"{name}~{copy}": file
            for copy in range(1, check_integer("count", count) + 1)
            for name, file in self._files.items()
        }
        return LabelledImages(files, self._read, self.class_names, **self._options)

    def subset(self, names: Iterable[str]) -> LabelledImages:
        """Keep the images of some names, in the order that they have here.

        Args:
            names: At least one name, without ending.

        Raises:
            LabelFolderError: If there is no image of one of the names.
            ValueError: If `names` is empty or a single text.
        """
        return self._of(chosen(self._files, names))

    def split(
        self, validation_split: float, seed: int | None = None
    ) -> tuple[LabelledImages, LabelledImages]:
        """Split into training and validation by nothing but the names and the seed.

        The order plays no part, so that two calls, on two machines too, agree.

        Args:
            validation_split: The share for validation, between 0 and 1; at least one image goes
                to each side.
            seed: Another seed gives another split; `None` counts as 0.

        Returns:
            The images for training and those for validation, each sorted by name.

        Raises:
            ValueError: If the share is not between 0 and 1, or there are fewer than two images.
        """
        check_number("validation_split", validation_split, "(0, 1)")
        if len(self) < 2:
            raise ValueError(f"`split` needs at least two images. Received: {len(self)}")
        salt = f"{seed or 0}:"
        ranked = sorted(self.names, key=lambda one: hashlib.blake2b((salt + one).encode()).digest())
        count = min(max(round(len(self) * validation_split), 1), len(self) - 1)
        return self._of(sorted(ranked[count:])), self._of(sorted(ranked[:count]))

    def crops(
        self,
        crop_size: int | tuple[int, int] | None,
        batch_size: int = 8,
        *,
        shuffle: bool = True,
        augment: bool | str | Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        zoom: tuple[float, float] | None = None,
        repeats: int = 1,
        seed: int | None = None,
        split_pieces: bool | None = None,
        workers: int = 0,
        diameter: float | None = None,
    ) -> tf.data.Dataset | keras.utils.PyDataset:
        """Make batches of random crops for `fit`.

        Every epoch takes `repeats` crops of every image: nine of ten around a random instance, the
        others anywhere. Images smaller than the crop are continued by their edge pixels, with
        void as labels, or background where labels are only instances. Gray images become three
        equal channels and alpha is dropped. Up to 1 GiB of decoded images stays in memory.

        A crop can cut an instance in two. With `split_pieces`, every connected piece (eight
        neighbors) becomes an instance of its own, which also splits an object behind a pole.

        Args:
            crop_size: Side of the square crops, (height, width), or `None` for whole images at
                their own sizes, which needs `batch_size=1`.
            batch_size: Crops per batch; the last batch of an epoch may be smaller.
            shuffle: New order and new crops in every epoch; `False` gives every epoch the same
                order and the same crops.
            augment: `True` turns crops by any angle, mirrors them, and changes contrast,
                brightness, gamma, blur and noise; "microscopy" changes stains, focus and the
                evenness of the light as well, and inverts some; "photo" mirrors crops left and
                right and changes contrast, brightness and saturation; `False` changes nothing. Or
                a Keras layer or a function on a dictionary of float32 `images` (B, H, W, 3) and
                `segmentation_masks` (B, H, W, 1), which number the regions of an image. It gets
                the crops with a margin, of which the middle is kept, so that turning finds real
                pixels. `None` is `True` for a folder, and "photo" for PASCAL VOC and COCO.
            zoom: With `augment=True` or a name, each crop is enlarged by a random factor from
                this range; factors below 1 reduce it and show more. Whole images keep their
                sizes. `None` is (0.65, 1.5) for a folder, (0.7, 1.5) for PASCAL VOC and COCO.
            repeats: Crops per image and epoch.
            seed: Makes the batches repeatable; `None` draws one from Python's generator.
            split_pieces: Whether each connected piece becomes an instance. `None` is `True` for a
                folder, and `False` for PASCAL VOC and COCO.
            workers: Processes that make the batches of a `keras.utils.PyDataset`, on Linux; 0 for
                none.
            diameter: With `augment=True` or a name, in place of `zoom`: each crop is enlarged or
                reduced so that the median diameter √(4 area / π) of the objects of its image
                becomes about so many pixels, of a normal distribution of its binary logarithm with
                the standard deviation 0.8, cut at a quarter and four times.

        Returns:
            A `tf.data.Dataset` on TensorFlow without workers, otherwise a `keras.utils.PyDataset`,
            which `fit` takes on every backend. Batches are float32 images (B, h, w, 3) in the
            files' own value range and int32 instance maps (B, h, w); or, where there are classes,
            a dictionary of these as `instances` and of `classes`, int32 (B, h, w). 0 is the
            background; instances have ids from 1 without gaps; void pixels are `VOID` (-1) in both
            maps, for training with `ignore_label=VOID`.

        Raises:
            ValueError: If an argument is not as above, or there is no image.
        """
        from keras_rpe.data.crops import KINDS, CropOptions, labelled_batches, labelled_image

        if not self.names:
            raise ValueError("`crops` needs at least one image. Received: none")
        given = {"zoom": zoom, "diameter": diameter}
        for name, value in given.items():
            if value is not None and augment not in (None, True, *KINDS):
                raise ValueError(
                    f"`{name}` goes with augment=True, 'photo' or 'microscopy'. "
                    f"Received: {name}={value}, augment={augment!r}"
                )
        if None not in given.values():
            raise ValueError(
                "`zoom` and `diameter` must not both be given. "
                f"Received: zoom={zoom}, diameter={diameter}"
            )
        photographs = self._options["photographs"]
        augment = ("photo" if photographs else True) if augment is None else augment
        zoom = (0.7 if photographs else 0.65, 1.5) if zoom is None else zoom
        pieces = not photographs if split_pieces is None else split_pieces
        options = CropOptions(
            crop_size, batch_size, shuffle, augment, zoom, repeats, seed, pieces, workers, diameter
        ).checked()

        def load(file: Any) -> LabelledImage:
            image, instances, classes = self._read(file)
            if classes is None and self._options["void"]:
                classes = instances.clip(max=1)
            return labelled_image(image, instances, classes)

        return labelled_batches(self._files, load, options, self._options["classes"])


def _read_of_either(file: tuple[Callable[[Any], LabelMaps], Any]) -> LabelMaps:
    return file[0](file[1])


def chosen(files: Mapping[str, Any], names: Iterable[str] | None) -> dict[str, Any]:
    """Keep the files of some names, or all where `names` is `None`."""
    if names is None:
        return dict(files)
    wanted = set() if isinstance(names, str) else set(names)
    if not wanted:
        raise ValueError(f"`names` must be a list of at least one name. Received: names={names!r}")
    missing = sorted(wanted - files.keys())
    if missing:
        raise LabelFolderError(
            f"`names` has {len(missing)} of which there is no image, such as {missing[0]!r}; those "
            f"of the {len(files)} images are without ending, such as {next(iter(files), '')!r}."
        )
    return {name: file for name, file in files.items() if name in wanted}
