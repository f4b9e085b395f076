"""The error of a folder of images and label images that cannot be used."""


class LabelFolderError(ValueError):
    """A folder whose images and label images do not fit together, with every reason found.

    Example:
    >>> from keras_rpe.data import LabelFolderError
    >>> str(LabelFolderError("1 of 2 image pairs cannot be used: a.png: its mask is missing."))
    '1 of 2 image pairs cannot be used: a.png: its mask is missing.'
    """
