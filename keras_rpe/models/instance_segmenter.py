"""The instance segmenter: pixels in, instances out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from keras_rpe.arguments import check_number
from keras_rpe.layers import (
    InstanceDecoder,
    MeanShiftRNN,
    ObjectSize,
    SeededMeanShift,
    SphericalEmbedding,
)
from keras_rpe.metrics import average_precision
from keras_rpe.models.embedding_task import EmbeddingTask
from keras_rpe.models.task import compiled_function, lateral_initializer, network, precise_dtype
from keras_rpe.ops.maps import WindowGrid, resample
from keras_rpe.results import Instances, image_label_pairs

Tensor = Any

_PARTS = ((0.1, 0.1), (0.1, 0.9), (0.9, 0.1), (0.9, 0.9))  # Of an image that views show.
_CLOSE_VIEW = 112
_VIEW = 160  # Side of the views in which the diameter is estimated, in pixels.
_EVERYWHERE = 0, 2**23, 0, 2**23  # Cells, more than an image has.
_CANVAS = 32  # JAX compiles for sides of whole multiples, not for each size.
_SCALES = 8.0  # An octave has as many, so that arithmetic of fewer bits mostly finds the same one.
_STEPS = 256.0  # Parts of a pixel.
_GIVEN_OCTAVES = (-6.0, 2.0)  # Of a diameter that is given: larger images take time and memory.
# Enough for seeds, which lie among the pixels of their group from the start.
SEED_LOOPS = 3


@keras.saving.register_keras_serializable(package="keras_rpe")
class InstanceSegmenter(EmbeddingTask):
    """Segment the instances of an image by recurrent pixel embedding.

    Kong & Fowlkes (CVPR 2018). A backbone and a feature fusion feed two heads: unit embeddings,
    which mean shift then groups, and class scores of each pixel. The margin loss is taken on the
    embeddings before and after every loop, so the grouping is trained through. The decoder is
    part of the graph as well.

    Args:
        backbone: A name ("unet_small", which trains on a CPU, "mobilenet_v2", "resnet50"), or a
            Keras model from images `(batch, H, W, 3)` in [0, 1] to features at strides that
            double, or a KerasHub or KerasCV backbone.
        embedding_dim: Dimension D of the embedding.
        num_classes: Classes other than the background. With 1, all instances are of one class.
        class_names: Names of these classes; commands print them. `None`: their numbers.
        iterations: Loops of mean shift in training, each with a loss of its own.
        bandwidth: Kernel width δ of the mean shift.
        step_size: η in (0, 1] of the mean shift.
        trainable_bandwidth: Whether δ is learned.
        window_size: Side of the windows that are grouped each for itself, in cells of the
            embedding map, so that time grows linearly with the image; `None`: whole images.
        inference_seeds: Seeds at most, in each window, of the mean shift of prediction, whose time
            is linear in the pixels and in the seeds that it takes (see `SeededMeanShift`); `None`:
            the mean shift of training, which compares all pixels of a window, 10 to 100 times the
            time.
        inference_iterations: Loops at most when predicting; default: 3, or as in training if
            there are no seeds.
        inference_window_size: Side of the windows when predicting, larger by default, since an
            object that lies in two windows may come apart; `None`: as in training.
        inference_window_overlap: Cells of its neighbors that a window sees when seeds group it.
            Objects up to this size are whole where they lie in two windows.
        margin: Margin α of the loss. Training warns if images have more instances than it can push
            apart in `embedding_dim` dimensions; see `keras_rpe.margins`.
        neighborhood: Distance, in cells of the embedding map, up to which the loss pushes
            instances apart (see `CosineMarginLoss`), so that hundreds fit on the sphere: those
            further apart are told apart by their places. `None`: any distance, as in the paper.
        coordinates: Whether the embedding head sees each pixel's position in the whole image.
        position_periods: Periods, in cells of the embedding map, of the rotation of the embedding
            with position, which tells like objects at different places apart and lets a network
            trained on crops segment images of any size; `None`: none, as in the paper, and for an
            odd `embedding_dim`.
        embed_background: Whether the background is an instance of the pair loss and attracts
            pixels in the mean shift, as in the paper; otherwise that is left to the class scores,
            which then weigh the pixels of the mean shift. Needed for `position_periods`, which
            leave the background without one place.
        output_stride: Stride of the embedding map; default: the finest of the backbone.
        fusion_filters: Width of the fused features.
        percentiles: Percentiles of each image that become 0 and 1; `None`: images are in [0, 1].
        ignore_label: Id of void pixels in the instance maps; in the class maps as well, where it is
            no class. Void in an instance map is void for the class scores too.
        decoder: An `InstanceDecoder`; default: one with its default thresholds.
        find_diameter: Whether a head learns the diameter of the objects, so that images are resized
            to the one that the model was trained at before they are segmented.
        backbone_weights: Weights of a backbone made by name: `None`, "imagenet" or a path.
        name: Name of the model.
        trainable: Whether training changes the weights.

    Input shape:
        Images `(batch, H, W, C)` of any size and value range, C = 1, 3 or 4.

    Output shape:
        `model(images)` gives what training needs, a dictionary: `embedding` and `shift_1` …
        `shift_T`, `(batch, h, w, D)`, and `semantic`, logits `(batch, H, W, num_classes + 1)`; h
        and w are H and W over the output stride, rounded up to whole strides of the backbone.
        `predict(images)` gives the dictionary of `InstanceDecoder`: `labels`, `scores`, `boxes`,
        `classes` and `num_instances`; `predict_instances(image)` the `Instances` of one image.

    Training:
        Labels are integer instance maps `(batch, H, W)` or `(batch, H, W, 1)`, 0 = background; with
        several classes, a dictionary of two such maps, `instances` and `classes`.
        `compile(loss="auto")` takes cross-entropy for `semantic` and the margin loss for each other
        output.

    Raises:
        ValueError: If an argument is out of its range, or the backbone has no pyramid.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import InstanceSegmenter
        >>> model = InstanceSegmenter(backbone="unet_small", embedding_dim=8, iterations=1)
        >>> model.compile("adam")
        >>> images = np.random.randint(0, 255, (2, 32, 32, 3), "uint8")
        >>> maps = np.random.randint(0, 3, (2, 32, 32))
        >>> history = model.fit(images, maps, verbose=0)
        >>> model.predict_instances(images[0]).labels.shape
        (32, 32)
    """

    mean_shift: MeanShiftRNN
    served_maps: ClassVar[dict[str, str]] = {"labels": "int32"}
    served_tables: ClassVar[dict[str, str]] = {
        "scores": "float32",
        "boxes": "int32",
        "classes": "int32",
        "num_instances": "int32",
        "diameter": "float32",
    }

    def __init__(
        self,
        backbone: str | keras.Model = "unet_small",
        embedding_dim: int = 24,
        num_classes: int = 1,
        iterations: int = 2,
        bandwidth: float = 0.2,
        step_size: float = 1.0,
        trainable_bandwidth: bool = False,
        window_size: int | None = 16,
        inference_seeds: int | None = 512,
        inference_iterations: int | None = None,
        inference_window_size: int | None = 128,
        inference_window_overlap: int = 16,
        margin: float = 0.5,
        neighborhood: float | None = 16.0,
        coordinates: bool = False,
        position_periods: Sequence[float] | None = (12.0, 24.0, 48.0),
        output_stride: int | None = None,
        embed_background: bool = False,
        fusion_filters: int = 32,
        percentiles: tuple[float, float] | None = (1.0, 99.8),
        ignore_label: int | None = None,
        decoder: InstanceDecoder | None = None,
        find_diameter: bool = True,
        backbone_weights: str | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "instance_segmenter",
        trainable: bool = True,
    ) -> None:
        # The heads and the grouping keep float32 under mixed precision: they are a small part of
        # the work, and 16 bits are too few for the sums of a kernel.
        precise = precise_dtype()
        super().__init__(
            network(backbone, backbone_weights),
            SphericalEmbedding(
                embedding_dim, coordinates, position_periods, dtype=precise, name="embedding"
            ),
            MeanShiftRNN(
                iterations,
                bandwidth,
                step_size,
                trainable_bandwidth,
                window_size=window_size,
                dtype=precise,
                name="mean_shift",
            ),
            num_classes=num_classes,
            margin=margin,
            neighborhood=neighborhood,
            output_stride=output_stride,
            embed_background=embed_background,
            fusion_filters=fusion_filters,
            lateral_initializer=lateral_initializer(backbone_weights),
            percentiles=percentiles,
            ignore_label=ignore_label,
            object_size=ObjectSize(dtype=precise, name="object_size") if find_diameter else None,
            class_names=class_names,
            name=name,
            trainable=trainable,
        )
        self.find_diameter = self.takes_diameter = find_diameter
        self.decoder = decoder or InstanceDecoder(dtype=precise, name="decoder")
        self.seeded_mean_shift = None
        if inference_seeds is not None:
            self.seeded_mean_shift = SeededMeanShift(
                inference_seeds,
                bandwidth,
                inference_iterations or SEED_LOOPS,
                window_size=inference_window_size or window_size,
                window_overlap=inference_window_overlap,
                dtype=precise,
                name="seeded_mean_shift",
            )
        self.inference_iterations = inference_iterations
        self.inference_window_size = inference_window_size
        self.inference_window_overlap = inference_window_overlap

    def serve(
        self,
        images: Tensor,
        diameter: Tensor | None = None,
        max_instances: int | None = None,
        canvas: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """Segment images inside the graph, as `predict` and exported models do.

        Args:
            images: `(batch, H, W, C)`, any value range.
            diameter: That of the objects, in pixels, a positive scalar or `(batch,)`; `None`: it is
                estimated.
            max_instances: Length of the tables; default: that of the decoder.
            canvas: As in `group`.

        Returns:
            As `InstanceDecoder`, and `diameter`, float32 `(batch,)`, that of the objects, as
            estimated or given; 0 without `find_diameter`, and before training. Images are segmented
            at the nearest of eight scales an octave.
        """
        height, width = ops.shape(images)[1], ops.shape(images)[2]
        grouped = self.group(images, diameter, canvas)
        result = self.decode(grouped, height, width, max_instances=max_instances)
        return {**result, "diameter": grouped["diameter"]}

    def group(
        self,
        images: Tensor,
        diameter: Tensor | None = None,
        canvas: tuple[int, int] | None = None,
        limits: Tensor | None = None,
        start: Tensor | None = None,
        grid: WindowGrid | None = None,
    ) -> dict[str, Tensor]:
        """Resize images to the diameter of training, and group their embeddings.

        Args:
            images: `(batch, H, W, C)`, any value range.
            diameter: As in `serve`.
            canvas: Height and width that hold the resized images; default: what they need. JAX,
                whose shapes are known when it compiles, takes images as they are without it.
            limits: As in `ImageNormalization`.
            start: Row and column where the resized images begin, in pixels, `(batch, 2)`;
                default: 0.
            grid: As in `SeededMeanShift`.

        Returns:
            `modes` `(batch, h, w, D)` and `scores` `(batch, h · stride, w · stride, classes)` of
            the resized images, `scale` `(batch,)`, by how much they are larger, and `diameter`.
        """
        if self.object_size is None:
            embedding, scores = self.embed_normalized(self.normalized(images, limits))
            one = ops.ones_like(scores[:, 0, 0, 0])
            modes = self.shift(embedding, scores, grid=grid)
            return {"modes": modes, "scores": scores, "scale": one, "diameter": 0.0 * one}
        pixels = self._pixels(images, limits)
        octaves = self._octaves(pixels, diameter)
        step = _step(octaves)
        scale = 1.0 / step
        if keras.backend.backend() == "jax" and canvas is None:
            canvas, octaves = tuple(ops.shape(pixels)[1:3]), ops.zeros_like(octaves)
            scale = step = ops.ones_like(octaves)
        sides: Any = [ops.cast(n, "float32") for n in ops.shape(pixels)[1:3]]
        if start is not None:
            sides = [n - ops.min(start[:, axis]) for axis, n in enumerate(sides)]
        height, width = canvas or (
            ops.maximum(ops.cast(ops.ceil(ops.max(scale) * n), "int32"), 1) for n in sides
        )
        resized = resample(pixels, step, height, width, start)
        embedding, scores = self.embed_normalized(_colors(resized))
        scores = scores * self._inside(scale, pixels, scores, start)
        trained = ops.convert_to_tensor(self.object_size.log_diameter)
        known = ops.cast(trained > 0, "float32")
        return {
            "modes": self.shift(embedding, scores, grid=grid),
            "scores": scores,
            "scale": scale,
            "diameter": known * ops.exp2(trained - octaves),
        }

    def serve_part(
        self,
        images: Tensor,
        diameter: Tensor,
        limits: Tensor,
        start: Tensor,
        own: Sequence[Tensor],
        grid: WindowGrid | None = None,
        max_instances: int | None = None,
        canvas: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """Segment parts of larger images as if they were seen whole, but for their rims.

        Instances may go on beyond a part, so those of few pixels are kept.

        Args:
            images: The parts, `(batch, H, W, C)`.
            diameter: As in `serve`.
            limits: What becomes 0 and 1 of the larger images, `(batch, 2)`.
            start: Row and column of the parts at which their resized images begin, `(batch, 2)`:
                where the resized larger images have a pixel that their largest stride divides.
            own: Of the cells, the first row, the one after the last, and columns likewise: only
                these make up instances, to which those beside them may go.
            grid: As in `SeededMeanShift`, of the larger images.
            max_instances: As in `serve`.
            canvas: As in `group`.

        Returns:
            As `serve`, and `modes` `(batch, h, w, D)` and `cells` `(batch, h, w)`, the groups and
            the labels of the cells.
        """
        height, width = ops.shape(images)[1], ops.shape(images)[2]
        least = self.decoder.fragment_area
        options: dict[str, Any] = {
            "max_instances": max_instances,
            "min_area": 0,
            "score_threshold": 0.0,
            "fragment_area": self.decoder.min_area if least is None else least,
        }
        if self.object_size is None:
            grouped = self.group(images, None, None, limits, grid=grid)
        else:
            grouped = self.group(images, diameter, canvas, limits, start, grid)
            options["start"] = -start * ops.expand_dims(grouped["scale"], 1)
        rows, columns = (ops.arange(ops.shape(grouped["modes"])[k], dtype="int32") for k in (1, 2))
        down = ops.logical_and(rows >= own[0], rows < own[1])
        across = ops.logical_and(columns >= own[2], columns < own[3])
        region = ops.expand_dims(ops.logical_and(ops.expand_dims(down, 1), across), 0)
        result = self.decode(grouped, height, width, region=region, **options)
        return {**result, "diameter": grouped["diameter"], "modes": grouped["modes"]}

    def estimate_diameter(self, images: Tensor) -> Tensor:
        """Estimate the median diameter of the objects in each image, inside the graph.

        Args:
            images: `(batch, H, W, C)`, any value range.

        Returns:
            √(4 area / π) in pixels, `(batch,)`; the diameter of training where no object is found.

        Raises:
            ValueError: If the model was made with find_diameter=False.
        """
        if self.object_size is None:
            raise ValueError("`estimate_diameter` needs a model made with find_diameter=True.")
        octaves = self._octaves(self._pixels(images), None)
        return ops.exp2(ops.convert_to_tensor(self.object_size.log_diameter) - octaves)

    def pixel_step(self, diameter: float) -> float:
        """How far apart the pixels of an image lie that is resized for objects of a diameter.

        Args:
            diameter: √(4 area / π) in pixels of the image.

        Returns:
            The distance in pixels of the image, the nearest of eight in an octave: above 1 if the
            image is made smaller; 1 without `find_diameter`, and before training.

        Raises:
            ValueError: If `diameter` is not a positive number.

        Example:
            >>> from keras_rpe.models import InstanceSegmenter
            >>> InstanceSegmenter.from_preset("nuclei").pixel_step(40)
            2.0
        """
        check_number("diameter", diameter)
        if self.object_size is None:
            return 1.0
        return float(ops.convert_to_numpy(_step(self._given_octaves(diameter))))

    def decode(
        self, grouped: dict[str, Tensor], height: Tensor | int, width: Tensor | int, **options: Any
    ) -> dict[str, Tensor]:
        """Read instances of images of this size off what `group` gave; options of the decoder."""
        if self.object_size is None:
            result = self.decoder(grouped["modes"], grouped["scores"], **options)
            return {**result, "labels": result["labels"][:, :height, :width]}
        options |= {"size": (height, width), "step": grouped["scale"]}
        return self.decoder(grouped["modes"], grouped["scores"], **options)

    def _pixels(self, images: Tensor, limits: Tensor | None = None) -> Tensor:
        """Normalized images, of a single channel if they are gray: that is resized for all."""
        return self._normalization.scaled(images, limits) if self._normalization else images

    def _octaves(self, pixels: Tensor, diameter: Tensor | None) -> Tensor:
        """How many times to double each image: by the given diameter, or by that in its views.

        One view is the whole image, made as small as a view if it is larger, the other its middle.
        Four show parts at the diameter that these two say, where the head knows best.
        """
        head: Any = self.object_size
        one = ops.ones_like(pixels[:, 0, 0, 0])
        if diameter is not None:
            return self._given_octaves(diameter) * one
        sides = ops.cast(ops.stack([ops.shape(pixels)[1], ops.shape(pixels)[2]]), "float32")
        whole = ops.maximum(ops.max(sides) / _VIEW, 1.0) * one
        steps, middle = ops.stack([whole, one]), ((0.5, 0.5), (0.5, 0.5))
        coarse = head.octaves(*self._sizes_in_views(pixels, sides, steps, middle, _VIEW))
        steps = ops.stack([ops.exp2(-coarse)] * len(_PARTS))
        close = self._sizes_in_views(pixels, sides, steps, _PARTS, _CLOSE_VIEW)
        return head.octaves(*close, unknown=coarse)

    def _given_octaves(self, diameter: Tensor | float) -> Tensor:
        head: Any = self.object_size
        trained = ops.convert_to_tensor(head.log_diameter)
        wanted = ops.clip(trained - ops.log2(ops.cast(diameter, "float32")), *_GIVEN_OCTAVES)
        return ops.where(trained > 0, wanted, 0.0)

    def _sizes_in_views(
        self,
        pixels: Tensor,
        sides: Tensor,
        steps: Tensor,
        places: Sequence[tuple[float, float]],
        side: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `ObjectSize.octaves` takes, for views `(views, batch)` steps apart.

        A place is how much of what a view leaves out lies above it, and on its left.
        """
        network: Any = self.size_network
        sides = ops.reshape(sides, (1, 1, 2))
        shown = ops.expand_dims(steps, 2) * side
        before = np.array(places, "float32")[:, None]
        starts = ops.maximum(sides - shown, 0.0) * before
        count, batch = steps.shape[0], ops.shape(pixels)[0]
        views = [resample(pixels, steps[i], side, side, starts[i]) for i in range(count)]
        sizes = network(_colors(ops.concatenate(views, axis=0)), training=False)
        cells = sizes.shape[1]
        center = (np.arange(cells, dtype="float32") + 0.5) * (side / cells)
        places = ops.expand_dims(starts, 3) + ops.reshape(center, (1, 1, 1, -1)) * ops.reshape(
            steps, (count, -1, 1, 1)
        )
        inside = places < ops.expand_dims(sides, 3)
        real = ops.logical_and(
            ops.expand_dims(inside[:, :, 0], 3), ops.expand_dims(inside[:, :, 1], 2)
        )
        real = ops.reshape(real, (count, batch, cells**2))
        return ops.reshape(sizes, (count, batch, cells**2, 2)), steps, real

    def _inside(
        self, scale: Tensor, pixels: Tensor, scores: Tensor, start: Tensor | None
    ) -> Tensor:
        """1 where a score belongs to its resized image, 0 beyond, `(batch, h, w, 1)`."""
        ends = ops.reshape(ops.cast(ops.stack(ops.shape(pixels)[1:3]), "float32"), (1, 2))
        ends = ops.expand_dims(scale, 1) * (ends if start is None else ends - start)
        rows, columns = (
            ops.expand_dims(ops.cast(ops.arange(ops.shape(scores)[axis + 1]), "float32"), 0)
            < ends[:, axis : axis + 1]
            for axis in (0, 1)
        )
        inside = ops.logical_and(ops.expand_dims(rows, 2), ops.expand_dims(columns, 1))
        return ops.cast(ops.expand_dims(inside, -1), "float32")

    def shift(
        self,
        embedding: Tensor,
        scores: Tensor,
        return_sequences: bool = False,
        grid: WindowGrid | None = None,
    ) -> Tensor:
        """Group embeddings with the loops and windows of prediction.

        Args:
            embedding: Unit embeddings, as `embed` gives them.
            scores: Class scores, as `embed` gives them.
            return_sequences: Whether to return the embeddings after every loop, of the mean shift
                of training then.
            grid: As in `SeededMeanShift`.

        Returns:
            `(batch, h, w, D)`, or `(loops, batch, h, w, D)`.
        """
        weights = None if self.embed_background else ops.sum(scores, axis=-1)
        if self.seeded_mean_shift is not None and not return_sequences:
            return self.seeded_mean_shift(
                embedding, weights, bandwidth=self.mean_shift.current_bandwidth, grid=grid
            )
        return self.mean_shift(
            embedding,
            weights,
            iterations=self.inference_iterations,
            window_size=self.inference_window_size,
            return_sequences=return_sequences,
        )

    def predict_instances(self, image: Any, diameter: float | str = "auto") -> Instances:
        """Segment one image.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side, any integer or float data type and value range.
            diameter: That of the objects, √(4 area / π) in pixels; the image is segmented at the
                scale at which they have the diameter of the objects in training. "auto" estimates
                it, and takes the image at a scale from 1/16 to 4; where it finds no object, at 1.
                With objects of very different sizes it is a mean.

        Returns:
            The instances: label map, scores, boxes, classes, and the diameter.

        Raises:
            ValueError: If it is not one such image, or not finite, or the diameter is neither
                "auto" nor a positive number, or is given and the model has none.
        """
        given: tuple[float, ...] = ()
        if diameter != "auto":
            given = (check_number("diameter", diameter),)
            if self.object_size is None:
                raise ValueError(
                    "`diameter` must be 'auto' for a model made with find_diameter=False. "
                    f"Received: diameter={diameter}"
                )
        options: dict[str, Any] = {"channels": self._channels(image)}
        if self.object_size is not None and keras.backend.backend() == "jax":
            if not given:
                given = (self.predict_diameter(image),)
            options["canvas"] = self._canvas(np.shape(image)[:2], given[0])
        return Instances.from_tables(self._tables(self.serve, image, *given, **options))

    def predict_diameter(self, image: Any) -> float:
        """Estimate the median diameter of the objects in one image, in pixels.

        Args:
            image: As `predict_instances` takes it.

        Returns:
            As `estimate_diameter`.

        Raises:
            ValueError: As `estimate_diameter`.
        """
        found = self._run_one(self._estimated, image, channels=self._channels(image))
        return float(found["diameter"][0])

    def predict_part(
        self,
        image: Any,
        diameter: float,
        limits: tuple[float, float],
        start: tuple[float, float] = (0.0, 0.0),
        own: tuple[int, int, int, int] | None = None,
        grid: WindowGrid | None = None,
    ) -> dict[str, np.ndarray]:
        """Segment a part of a larger image as if that were seen whole, but for the part's rims.

        Args:
            image: The part, as `predict_instances` takes it.
            diameter: That of the objects, in pixels; ignored by a model without one.
            limits: The percentiles of the larger image.
            start: As in `serve_part`.
            own: As in `serve_part`; default: all cells.
            grid: As in `serve_part`; JAX compiles the graph for each.

        Returns:
            `labels` `(H, W)`; `scores` and `classes`, of which the first `num_instances` are
            filled; the labels and modes of the cells, `cells` `(h, w)` and `modes` `(h, w, D)`; and
            `diameter`, in pixels.
        """
        numbers: tuple[float, ...] = (diameter, *limits, *start, *(own or _EVERYWHERE))
        # By its axes alone: parts of one image go through one graph.
        gray = np.ndim(image) == 2 and self.object_size is not None
        options: dict[str, Any] = {"channels": 1 if gray else 3}
        if keras.backend.backend() == "tensorflow" and grid is not None:
            numbers += (*grid[0], *grid[1])  # One graph serves all.
        else:
            options["grid"] = grid
        if self.object_size is not None and keras.backend.backend() == "jax":
            options["canvas"] = self._canvas(np.shape(image)[:2], diameter)
        tables = self._tables(self._part, image, *numbers, **options)
        return {name: table[0] for name, table in tables.items()}

    def _part(
        self,
        images: Tensor,
        diameter: Tensor,
        low: Tensor,
        high: Tensor,
        row: Tensor,
        column: Tensor,
        *cells: Tensor,
        **options: Any,
    ) -> dict[str, Tensor]:
        own, grid = ([ops.cast(n, "int32") for n in part] for part in (cells[:4], cells[4:]))
        if grid:
            half = len(grid) // 2
            options["grid"] = (tuple(grid[:half]), tuple(grid[half:]))
        limits, start = (
            ops.reshape(ops.stack(pair), (1, 2)) for pair in ((low, high), (row, column))
        )
        tables = self.serve_part(images, diameter, limits, start, own, **options)
        del tables["boxes"]  # What is not returned is not computed.
        return tables

    def _channels(self, image: Any) -> int:
        """How many channels the graph is given: one where all are alike."""
        pixels = np.asarray(image)
        gray = pixels.ndim == 2 or (
            pixels.ndim == 3 and bool((pixels[..., :1] == pixels[..., 1:3]).all())
        )
        return 1 if gray and self.object_size is not None else 3

    def _canvas(self, sides: tuple[int, ...], diameter: float) -> tuple[int, ...]:
        """The size of a resized image, as JAX must know it before the graph is compiled for it."""
        step = self.pixel_step(diameter)
        return tuple(-(-math.ceil(n / step) // _CANVAS) * _CANVAS for n in sides)

    def _tables(
        self, function: Any, image: Any, *numbers: float, **options: Any
    ) -> dict[str, np.ndarray]:
        rows = self.decoder.max_instances
        tables = self._run_one(function, image, *numbers, max_instances=rows, **options)
        count = int(tables["num_instances"][0])
        if count > rows:  # The tables grow until all fit, by factors of two: each is a new trace.
            rows <<= (-(-count // rows) - 1).bit_length()
            tables = self._run_one(function, image, *numbers, max_instances=rows, **options)
        return tables

    def _estimated(self, images: Tensor) -> dict[str, Tensor]:
        return {"diameter": self.estimate_diameter(images)}

    def make_predict_function(self, force: bool = False) -> Any:
        """Make what `predict` calls, without XLA, as resized images are of any size."""
        jit = self.jit_compile
        self.jit_compile = jit and self.object_size is None
        try:
            return super().make_predict_function(force)
        finally:
            self.jit_compile = jit

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Make a model from its configuration, with random weights."""
        # Models were saved without a diameter before there was one.
        return super().from_config({"find_diameter": False, **config}, custom_objects)

    def optimize_thresholds(
        self,
        images: Iterable[Any],
        labels: Iterable[Any],
        iou_thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8),
    ) -> float:
        """Set the thresholds of the decoder to those that segment some images best.

        Args:
            images: Images that were not trained on, as `predict_instances` takes them.
            labels: The instance map `(H, W)` of each.
            iou_thresholds: The average precision is the mean over these.

        Returns:
            That average precision, in [0, 1], with the thresholds found. They are saved with the
            model, and those of `model.decoder`.

        Raises:
            ValueError: If there are no images, not as many label maps, or sizes differ.
        """
        self.decoder, precision = best_decoder(self, images, labels, iou_thresholds)
        # Both have the old decoder in their graphs.
        self._compiled_serve, self.predict_function = MappingProxyType({}), None
        return precision


def _colors(pixels: Tensor) -> Tensor:
    """The three channels that networks take."""
    return ops.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


# In the order in which they are searched, from the one that matters most.
_CANDIDATES: dict[str, tuple[float, ...]] = {
    "similarity_threshold": (
        *(0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98),
    ),
    "foreground_threshold": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8),
    "score_threshold": (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
    "min_area": (0, 8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256),
    "fragment_area": (0, 16, 32, 48, 64, 96, 128, 192, 256),
}
_MOST_ROUNDS = 3
_FIRST_STEP = 4  # Candidates further on; then half as many, and so on.


def _step(octaves: Tensor) -> Tensor:
    """How far apart the pixels of images lie that are resized by so many octaves, or nearly so."""
    octaves = ops.round(octaves * _SCALES) / _SCALES
    # Of few binary places, so that where pixels lie is exact, in a part of an image as well.
    return ops.round(ops.exp2(-octaves) * _STEPS) / _STEPS


def best_decoder(
    model: Any, images: Iterable[Any], labels: Iterable[Any], iou_thresholds: Sequence[float]
) -> tuple[InstanceDecoder, float]:
    """Find the decoder of `InstanceSegmenter.optimize_thresholds`, and its average precision.

    The thresholds are searched one after the other, again until none changes, in steps along their
    candidates that become smaller (Hooke & Jeeves, 1961). The network and the grouping run once on
    each image, and their results stay in memory.
    """
    run = compiled_function(model, model.group, [(None, None, None, 3)])
    pairs = [(run(image[None]), truth) for image, truth in image_label_pairs(images, labels)]
    names = [*pairs[0][0]]
    truths = [truth for _, truth in pairs]
    found: dict[tuple[float, ...], float] = {}
    config = model.decoder.get_config()

    def decoded(frame: Any, *arrays: Any) -> dict[str, Any]:
        height, width = ops.shape(frame)[0], ops.shape(frame)[1]
        grouped, thresholds = dict(zip(names, arrays)), arrays[len(names) :]
        return {
            "labels": model.decode(grouped, height, width, **dict(zip(_CANDIDATES, thresholds)))[
                "labels"
            ]
        }

    shapes = [(*[None] * (len(x.shape) - 1), x.shape[-1]) for x in pairs[0][0].values()]
    shapes = [(None,) if len(shape) == 1 else shape for shape in shapes]
    decode = compiled_function(model, decoded, [(None, None), *shapes, *([()] * len(_CANDIDATES))])

    def numbers(settings: dict[str, Any]) -> dict[str, float]:
        fragment = settings["fragment_area"]
        least = settings["min_area"] if fragment is None else fragment
        return {**settings, "fragment_area": least}

    def precision(settings: dict[str, Any]) -> float:
        thresholds = tuple(numbers(settings)[name] for name in _CANDIDATES)
        if thresholds not in found:
            values = [np.float32(value) for value in thresholds]
            maps = [
                ops.convert_to_numpy(
                    decode(np.zeros(truth.shape, "float32"), *one.values(), *values)["labels"]
                )[0]
                for one, truth in pairs
            ]
            scores = average_precision(
                truths, maps, thresholds=iou_thresholds, ignore_label=model.ignore_label
            )
            found[thresholds] = float(np.mean(scores))
        return found[thresholds]

    best = {name: config[name] for name in _CANDIDATES}
    for _ in range(_MOST_ROUNDS):
        before = dict(best)
        for name, candidates in _CANDIDATES.items():
            values, step = sorted({numbers(best)[name], *candidates}), _FIRST_STEP
            while step:
                at = values.index(numbers(best)[name])
                near = [k for k in (at - step, at + step) if 0 <= k < len(values)]
                # The first of equal ones: a threshold stays where others are not better.
                better = max([best, *({**best, name: values[k]} for k in near)], key=precision)
                step //= 2 if better == best else 1
                best = better
        if best == before:
            break
    return InstanceDecoder.from_config({**config, **best}), precision(best)
