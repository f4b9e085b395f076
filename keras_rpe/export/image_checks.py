"""What a served graph refuses, before it allocates anything, and how it says so."""

from __future__ import annotations

import tensorflow as tf

from keras_rpe.models.image_array import MIN_SIDE

# A request of that many pixels takes the preset `nuclei` some 4 GB.
MAX_PIXELS = 2048 * 2048


def checked_images(images: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Let a batch of images through, or fail with one sentence, inside the graph.

    Args:
        images: `(batch, H, W, 3)`, any data type.
        max_pixels: Most pixels, batch · H · W, of a request.

    Returns:
        The same images.

    Raises:
        tf.errors.InvalidArgumentError: When it runs, if the batch is empty or of another rank, a
            side is below 8 pixels, there are more pixels than that, or one is not finite.

    Example:
        >>> import tensorflow as tf
        >>> from keras_rpe.export.image_checks import checked_images
        >>> checked_images(tf.zeros((1, 8, 9, 3), "uint8"), max_pixels=100).shape.as_list()
        [1, 8, 9, 3]
    """
    shape = tf.shape(images, out_type=tf.int64)
    # By the number of values: the static shape says nothing else than what is wanted here, while
    # not every server holds its clients to it.
    right = tf.logical_and(
        shape[0] >= 1, tf.size(images, out_type=tf.int64) == 3 * tf.reduce_prod(shape[:3])
    )
    message = tf.strings.format(
        "`image` must be of shape (batch, height, width, 3), with at least one image. "
        "Received: shape={}",
        (shape,),
    )
    with tf.control_dependencies([tf.debugging.Assert(right, [message])]):
        shape = tf.identity(shape)
    fits = check_size(shape[1], shape[2], shape[0], max_pixels, "image")
    with tf.control_dependencies([fits]):
        images = tf.identity(images)
    if not images.dtype.is_floating:
        return images
    finite = tf.reduce_all(tf.math.is_finite(images))
    message = "`image` must be finite. Received: NaN or infinite pixels"
    with tf.control_dependencies([tf.debugging.Assert(finite, [message])]):
        return tf.identity(images)


def check_size(
    height: tf.Tensor, width: tf.Tensor, batch: tf.Tensor | int, max_pixels: int, name: str
) -> tf.Operation:
    """Check the size of images.

    Args:
        height: Their height, a scalar int64.
        width: Their width.
        batch: How many there are.
        max_pixels: Most pixels, batch · height · width.
        name: Name of the input, for the message.

    Returns:
        The operation that fails, when it runs, if a side is below 8 pixels or there are more
        pixels than that.
    """
    fits = tf.logical_and(
        tf.minimum(height, width) >= MIN_SIDE,
        # A division, since a product of sizes that a header claims may overflow.
        width <= max_pixels // batch // tf.maximum(height, 1),
    )
    message = tf.strings.format(
        f"`{name}` must be at least {MIN_SIDE} pixels high and wide, and of at most {max_pixels} "
        "pixels in all images of a request. Received: batch={}, height={}, width={}",
        (batch, height, width),
    )
    return tf.debugging.Assert(fits, [message])
