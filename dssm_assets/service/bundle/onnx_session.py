"""Exported towers opened with ONNX Runtime, which sends nothing to its vendor. Other modules do not import ONNX Runtime.

Official builds of ONNX Runtime send usage data to their vendor and keep a device id in the user's cache folder, from the import on. One
environment variable prevents both, if it is set before the import; the call after the import only ends what a build without that
variable would send.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

NO_TELEMETRY: Final = "ORT_DISABLE_TELEMETRY"


def open_session(path: str | Path, num_threads: int = 1) -> Any:
    """Returns an inference session of a model's file on the CPU; raises ONNX Runtime's own errors."""
    os.environ[NO_TELEMETRY] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = num_threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
