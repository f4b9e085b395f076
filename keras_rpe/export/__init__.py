"""Models as files that return instances: for TensorFlow Serving, phones and other runtimes."""

from keras_rpe.export.bioimageio import export_bioimageio
from keras_rpe.export.clients import load_served, read_record
from keras_rpe.export.litert import export_litert
from keras_rpe.export.onnx import export_onnx
from keras_rpe.export.saved_model import ExportRecord, export_saved_model
from keras_rpe.export.served import ServedModel

__all__ = [
    "ExportRecord",
    "ServedModel",
    "export_bioimageio",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "load_served",
    "read_record",
]


def __dir__() -> list[str]:
    return __all__
