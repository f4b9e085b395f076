"""The error of an image file that cannot be used."""


class ImageFileError(ValueError):
    """An image or label file that is missing, broken or of a kind that is not accepted.

    The message is one sentence that names the file.

    Example:
    >>> from keras_rpe.data import ImageFileError
    >>> str(ImageFileError("cell.png is empty (0 bytes)."))
    'cell.png is empty (0 bytes).'
    """
