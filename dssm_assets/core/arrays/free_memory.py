"""Gives freed memory back to the system."""

from __future__ import annotations

import ctypes


def release_memory() -> None:
    """Returns to the system what was freed: allocators keep it, and what comes next wants blocks of other sizes."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
