"""Export a Keras model to other formats and check every file: `export(model, formats, ...)`.

TFLite needs `pip install "keras-resnet-zoo[export]"`. Modules are imported on first use, so a
process that runs a .tflite file through `export.runtimes` needs neither Keras nor TensorFlow.
"""

from typing import TYPE_CHECKING

from keras_resnet.lazy import lazy_names

if TYPE_CHECKING:
    from keras_resnet.export.any_file import assert_same_answers, check_file
    from keras_resnet.export.formats.table import FORMATS
    from keras_resnet.export.formats.tflite import metadata as metadata
    from keras_resnet.export.measure import benchmark as benchmark
    from keras_resnet.export.measure import layer_errors as layer_errors
    from keras_resnet.export.npu.report import NPUS, NpuReport, npu_report
    from keras_resnet.export.pipeline import ExportReport, export, require_arguments

__all__ = [
    "FORMATS",
    "NPUS",
    "ExportReport",
    "NpuReport",
    "assert_same_answers",
    "check_file",
    "export",
    "npu_report",
    "require_arguments",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FORMATS": "keras_resnet.export.formats.table:FORMATS",
        "assert_same_answers": "keras_resnet.export.any_file:assert_same_answers",
        "check_file": "keras_resnet.export.any_file:check_file",
        "NPUS": "keras_resnet.export.npu.report:NPUS",
        "NpuReport": "keras_resnet.export.npu.report:NpuReport",
        "npu_report": "keras_resnet.export.npu.report:npu_report",
        "ExportReport": "keras_resnet.export.pipeline:ExportReport",
        "export": "keras_resnet.export.pipeline:export",
        "require_arguments": "keras_resnet.export.pipeline:require_arguments",
        # Short names for modules that the docs and the notebooks use.
        "benchmark": "keras_resnet.export.measure.benchmark",
        "layer_errors": "keras_resnet.export.measure.layer_errors",
        "metadata": "keras_resnet.export.formats.tflite.metadata",
    },
)
