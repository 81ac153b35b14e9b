"""Writes dagster.yaml for a home folder: a local Dagster instance without a service, one run at a time, no telemetry."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dssm_assets.storage.local_files import write_atomic

INSTANCE_FILE: Final = "dagster.yaml"
INSTANCE_YAML: Final = """\
# Written by dssm-assets: a local instance, SQLite in this folder.
run_launcher:  # reports runs of killed processes
  module: dssm_assets.deployment.watched_launcher
  class: WatchedRunLauncher
run_monitoring: {enabled: true, poll_interval_seconds: 30, free_slots_after_run_end_seconds: 60}
concurrency:
  runs: {max_concurrent_runs: 1}
telemetry: {enabled: false}
nux: {enabled: false}
"""


def write_instance_file(folder: Path) -> None:
    """Makes a folder a Dagster home: writes dagster.yaml, unless the folder has one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / INSTANCE_FILE
    if not path.exists():
        write_atomic(path, [INSTANCE_YAML.encode()])
