"""Models as files that return instances: for TensorFlow Serving, phones and other runtimes."""

from keras_rpe.export.export_model import export_model
from keras_rpe.export.export_record import ExportRecord
from keras_rpe.export.litert import export_litert
from keras_rpe.export.load_served import load_served
from keras_rpe.export.onnx import export_onnx
from keras_rpe.export.read_record import read_record
from keras_rpe.export.saved_model import export_saved_model
from keras_rpe.export.served_model import ServedModel

__all__ = [
    "ExportRecord",
    "ServedModel",
    "export_litert",
    "export_model",
    "export_onnx",
    "export_saved_model",
    "load_served",
    "read_record",
]
