"""The error of checkpoint files that cannot be used."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, of another kind, refused as unsafe, or does not fit the network."""
