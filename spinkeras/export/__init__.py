"""Export of trained networks to files for servers and other runtimes."""

from spinkeras.export.litert import export_litert
from spinkeras.export.network import ExportReport
from spinkeras.export.onnx import export_onnx
from spinkeras.export.saved_model import export_for_serving

__all__ = ["ExportReport", "export_for_serving", "export_litert", "export_onnx"]
