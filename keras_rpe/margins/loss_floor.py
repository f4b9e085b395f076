"""The least value of the margin loss."""

from __future__ import annotations

from keras_rpe.margins.arguments import check_groups, check_margin


def loss_floor(groups: int, margin: float) -> float:
    """The value below which the margin loss of Q groups cannot fall: (½ - α) - (1 - α) / Q.

    The inner products of all ordered pairs of Q unit vectors, each with itself included, sum up to
    the squared length of the vectors' sum, so those of different ones to -Q at least, whatever the
    dimension; where α is less than ½, many groups cannot all be that far apart. A loss that stops
    at the floor is optimal. It is reached where the vectors sum up to 0 and no similarity is
    below α: by a simplex, in D ≥ Q - 1 dimensions, and by other arrangements in less. Where the
    floor is 0, the loss still stops above it if the groups do not fit (see `smallest_margin`).

    Args:
        groups: Number of groups Q of an image, at least 1; the background is one where it is an
            instance of the loss.
        margin: Margin α of the loss, in [0, 1).

    Returns:
        The floor of the second term of `CosineMarginLoss` with `power=1`, equal weights of all
        pairs of groups and no neighborhood. Where each group has one embedding, the first term is
        0, and the floor is that of the whole loss.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        The loss is that of Kong & Fowlkes (CVPR 2018), section 3, equation 2.

    Example:
        >>> from keras_rpe.margins import loss_floor
        >>> round(loss_floor(10, 0.1), 6), loss_floor(2, 0.1), loss_floor(100, 0.5)
        (0.31, 0.0, 0.0)
    """
    check_groups(groups)
    check_margin(margin)
    return max(0.0, (0.5 - margin) - (1.0 - margin) / groups)
