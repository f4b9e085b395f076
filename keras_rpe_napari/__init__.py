"""The plugin of napari: panels that segment an image layer, and train on painted labels."""
