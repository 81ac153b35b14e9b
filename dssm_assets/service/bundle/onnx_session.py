"""Opens exported towers with ONNX Runtime, and keeps it from sending usage data. Only this module imports ONNX Runtime.

From their import on, official builds send usage data to the vendor and keep a device id in the user's cache folder. An
environment variable, set before the import, prevents both. The call after the import stops builds without this variable.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

NO_TELEMETRY: Final = "ORT_DISABLE_TELEMETRY"


def open_session(path: str | Path, num_threads: int = 1) -> Any:
    """Opens a model's file for inference on the CPU. Raises ONNX Runtime's own errors."""
    os.environ[NO_TELEMETRY] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = num_threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
