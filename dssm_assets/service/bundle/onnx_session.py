"""Opens exported towers with ONNX Runtime so that it sends nothing to its vendor. Only this module imports ONNX Runtime.

Official builds send usage data and keep a device id in the user's cache folder, starting at import. An environment variable,
set before the import, prevents both. The call after the import stops builds that do not know the variable.
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
