"""A shop that keeps its answers: the hand-written bundle, a configuration, its log, a process that serves.

Belongs here: what several tests of the extra need. Does not belong here: expectations.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from dssm_assets.core.config.evaluation import Serving
from dssm_assets.extras.shown.served import ShownAnswers, open_hook
from dssm_assets.storage.config_file import load_config
from dssm_assets.storage.layout import serving_root
from dssm_assets_tests.service.bundles import write_bundle
from dssm_assets_tests.service.http.servers import running_server
from dssm_assets_tests.worlds import CONFIG, merged

VARIANTS = [{"name": "control", "share": 0.5}, {"name": "vectors_only", "share": 0.5, "channels": "vectors"}]


def make_hook(root: Path | str, **serving: Any) -> ShownAnswers:
    return open_hook(Serving.model_validate({"shown": {"flush_seconds": 0.1}, **serving}), str(root), {})


def find_parts(root: Path | str) -> list[Path]:
    return sorted(Path(root).glob("shown/ds=*/*.parquet"))


def read_rows(root: Path | str) -> list[dict[str, Any]]:
    return [row for part in find_parts(root) for row in pq.ParquetFile(part).read().to_pylist()]


def write_shop(folder: Path, serving: dict[str, Any]) -> Path:
    """Writes a configuration and its bundle; returns the root of the bundles."""
    (folder / "config.yaml").write_text(yaml.safe_dump(merged(CONFIG, {"serving": serving})))
    root = Path(serving_root(load_config(folder / "config.yaml", folder / "home").root))
    root.mkdir(parents=True)
    write_bundle(root, has_channels=True, stores_inputs=True)
    return root


def served_by_process(folder: Path, *before: str) -> AbstractContextManager[tuple[subprocess.Popen[str], int]]:
    """Runs `dssm-assets serve` of a shop, after the words `before`; yields the process and its port."""
    run = "import sys; from dssm_assets.cli import main; sys.exit(main(['serve', '--port', '0', *sys.argv[1:]]))"
    options = ["--config", str(folder / "config.yaml"), "--home", str(folder / "home")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return running_server([*before, sys.executable, "-c", run, *options], stdout=subprocess.DEVNULL, env=environment)
