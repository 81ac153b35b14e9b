"""The section `duckdb` of the configuration: what the embedded table engine may take of the machine.

Belongs here: its keys and their bounds. Does not belong here: which engine runs (`config.py`), running it
(`storage/engine.py`).
"""

from __future__ import annotations

from pydantic import Field

from dssm_assets.core.section import Section


class DuckDB(Section):
    """Memory, threads and disk of the embedded engine. No result depends on them."""

    memory: str = Field(
        default="1GB",
        pattern=r"^[1-9][0-9]*(\.[0-9]+)? ?([KMG]i?B|TB)$",
        description="What it may hold, e.g. 512MB; what is more goes to `scratch`.",
    )
    threads: int | None = Field(default=None, ge=1, description="Threads; each holds blocks of its own (None: num_threads).")
    scratch: str = Field(
        default="{home}/scratch", description="Local folder for what does not fit; `{home}` is the configuration's home folder."
    )
